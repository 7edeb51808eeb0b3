// Shows the notes of a channel as they come: over a WebSocket or, where that does not get through, over server-sent
// events. The browser sends the cookie of the session along, by which Sidewire asks the app who this is.
const { sidewire, channel } = document.currentScript.dataset;
const state = document.getElementById("state");
const notes = document.getElementById("notes");
const slowest = 30_000;
let cursor = null;
let delay = 500;
let failures = 0;

function url(path) {
  const target = new URL(path, sidewire);
  target.searchParams.set("channel", channel);
  // After a break what was missed; at first what was there before.
  if (cursor) target.searchParams.set("cursor", cursor);
  else target.searchParams.set("history", "20");
  return target;
}

function show(event) {
  cursor = event.cursor ?? cursor;
  const note = document.createElement("li");
  // As text: what somebody wrote must not become a part of the page.
  note.textContent = `${event.data.from}: ${event.data.text}`;
  notes.append(note);
}

function openWebSocket() {
  const target = url("/v1/ws");
  target.protocol = target.protocol.replace("http", "ws");
  const socket = new WebSocket(target);
  let subscribed = false;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "event") show(message);
    if (message.type !== "subscribed") return;
    subscribed = true;
    delay = 500;
    failures = 0;
    cursor ??= message.cursor;
    state.textContent = "live";
  };
  socket.onclose = () => {
    if (!subscribed) failures += 1;
    // Some networks let no WebSocket through.
    comeBack(failures < 2 ? openWebSocket : openEventSource);
  };
}

function openEventSource() {
  const source = new EventSource(url("/v1/sse"), { withCredentials: true });
  source.onopen = () => { delay = 500; state.textContent = "live, by server-sent events"; };
  source.addEventListener("note", ({ data }) => show(JSON.parse(data)));
  source.onerror = () => {
    state.textContent = "away";
    // Else the browser comes back by itself.
    if (source.readyState === EventSource.CLOSED) comeBack(openEventSource);
  };
}

async function comeBack(open) {
  state.textContent = "away";
  if (await signedOut()) {
    state.textContent = "signed out";
    return;
  }
  // Not all browsers at the same moment.
  setTimeout(open, delay * (0.5 + Math.random()));
  delay = Math.min(delay * 2, slowest);
}

// A browser does not tell a page why it was refused: this asks the same thing in a way that has an answer.
async function signedOut() {
  try {
    const answer = await fetch(url("/v1/poll?timeout=0"), { credentials: "include" });
    return answer.status === 401 || answer.status === 403;
  } catch {
    return false;
  }
}

openWebSocket();
