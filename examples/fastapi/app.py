"""An app with sessions of its own, whose page shows notes as they come. Sidewire asks it who a browser is."""

import hashlib
import os
import secrets
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

HERE = Path(__file__).parent
SESSION_SECONDS = int(os.environ.get("SESSION_SECONDS", 8 * 3600))
# Where this app reaches Sidewire, and where its pages do.
SIDEWIRE_APP = os.environ.get("SIDEWIRE_APP_URL", "http://127.0.0.1:7070")
SIDEWIRE_CLIENT = os.environ.get("SIDEWIRE_CLIENT_URL", "http://localhost:7080")
POLICY = (
    f"default-src 'none'; script-src 'self'; connect-src {SIDEWIRE_CLIENT} {SIDEWIRE_CLIENT.replace('http', 'ws', 1)}; "
    "form-action 'self'; frame-ancestors 'none'"
)

# Who may sign in: salt and scrypt of the password. An app of yours has them in its database.
USERS = {
    "ann": "b9dbd468bf11ecf7f7a3b7fe1a208a69:e45bae3a10ee0ee607d84d4082ba276950e703273752ecdbd5f64c75ab531ca1d5b2c1f883e4e843b59334247deaa7010f85bb6f7482d094837ac6a69e6d31da",
    "bob": "f4729b70f5dc4fc4ff8e6a5c4c0b6aae:176afe84382249d5fe68b1800c62356df3b5f71ba42597b22396c434e7c63cbf43ec7c0d1a8990c53d876377154f90fba47fe09cc005ffeee96a244260e372b4",
}

# The cookie is signed, so nobody can make one up. Whether the session in it still lasts stands here: the user and when
# it ends, by the id of the session. With several workers this belongs into what they share, such as the database.
sessions: dict[str, tuple[str, float]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with httpx.AsyncClient(base_url=SIDEWIRE_APP, timeout=1) as app.state.sidewire:
        yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
app.add_middleware(
    SessionMiddleware,
    secret_key=os.environ["SESSION_SECRET"],
    max_age=SESSION_SECONDS,
    same_site="lax",
    # Off only where there is no TLS: on the developer's own machine.
    https_only=os.environ.get("APP_ENV") != "development",
)
app.mount("/static", StaticFiles(directory=HERE / "static"))
templates = Jinja2Templates(directory=HERE / "templates")


def live_session(request: Request) -> tuple[str, float] | None:
    """The user of this request's session and when it ends, if it lasts."""
    found = sessions.get(request.session.get("id", ""))
    return found if found and found[1] > time.time() else None


def user(request: Request) -> str:
    """Who is signed in."""
    found = live_session(request)
    if found is None:
        raise HTTPException(403, "Sign in first.")
    return found[0]


def form_token(request: Request) -> str:
    """Belongs into every form, so that a page of another site cannot send it."""
    return request.session.setdefault("form_token", secrets.token_hex(32))


def own_form(request: Request, token: Annotated[str, Form(alias="form_token")] = "") -> None:
    """Refuses a form that is not of this app's own page."""
    if not secrets.compare_digest(form_token(request).encode(), token.encode()):
        raise HTTPException(403, "This form is not from this app, or too old. Load the page again.")


def password_fits(name: str, password: str) -> bool:
    """Takes as long for a name that nobody has."""
    salt, known = USERS.get(name, USERS["ann"]).split(":")
    given = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1)
    return secrets.compare_digest(given, bytes.fromhex(known)) and name in USERS


async def sidewire(path: str, body: dict) -> bool:
    """Tells Sidewire something. False: it is away, or said no. The page must not fail because of that."""
    try:
        return (await app.state.sidewire.post(path, json=body)).is_success
    except httpx.HTTPError:
        return False


def home() -> RedirectResponse:
    return RedirectResponse("/", status_code=303)


@app.get("/", response_class=HTMLResponse)
def page(request: Request):
    found = live_session(request)
    known = {"user": found and found[0], "users": USERS, "sidewire": SIDEWIRE_CLIENT, "form_token": form_token(request)}
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return templates.TemplateResponse(request, "page.html", known, headers=headers)


@app.post("/sign-in", dependencies=[Depends(own_form)])
def sign_in(request: Request, name: Annotated[str, Form(alias="user")], password: Annotated[str, Form()]):
    # An app that faces the internet also counts how often somebody tries.
    if not password_fits(name, password):
        raise HTTPException(403, "That name and password do not belong together.")
    now = time.time()
    for ended in [key for key, (_, until) in sessions.items() if until <= now]:
        sessions.pop(ended, None)
    # What somebody else may know of the session of before is worth nothing now.
    request.session.clear()
    request.session["id"] = secrets.token_urlsafe(32)
    sessions[request.session["id"]] = (name, now + SESSION_SECONDS)
    return home()


@app.post("/sign-out", dependencies=[Depends(own_form)])
async def sign_out(request: Request):
    ended = sessions.pop(request.session.get("id", ""), None)
    request.session.clear()
    # First the session ends, and then what was opened with it: who comes back at once is asked about, and refused. A
    # page of the same user in another browser comes back.
    if ended:
        await sidewire("/v1/disconnect", {"user": ended[0]})
    return home()


@app.post("/note", dependencies=[Depends(own_form)])
async def note(
    sender: Annotated[str, Depends(user)],
    to: Annotated[str, Form()],
    text: Annotated[str, Form(min_length=1, max_length=500)],
):
    if to not in USERS:
        raise HTTPException(400, "There is nobody of that name.")
    event = {"channel": f"user.{to}.notes", "event": "note", "data": {"from": sender, "text": text}}
    if not await sidewire("/v1/publish", event):
        raise HTTPException(503, "The note could not be sent. Try again in a moment.")
    return home()


@app.post("/session")
def session(request: Request, response: Response):
    """Sidewire asks here, with the cookie of the browser that connects to it. Whoever else asks learns about their own
    session alone."""
    response.headers["Cache-Control"] = "no-store"
    found = live_session(request)
    if found is None:
        raise HTTPException(401, "Nobody is signed in.")
    name, until = found
    return {
        "user": name,
        "channels": {"user.{sub}.>": ["sub", "history"]},
        "expires_in": max(0, int(until - time.time())),
    }
