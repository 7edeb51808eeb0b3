"""What it costs to ask who may do what: the same node with tokens and permissions, and open to all, in turns."""

import base64
import hashlib
import hmac
import json
import time

import servers
from measure import generate, median, phase

SECRET = "only for this bench: more than 32 bytes of it"
APP_TOKEN = "only for this bench"
ROUNDS = 5
SUBSCRIBERS = 1_000
# Open to all, clients may publish where a rule says so. The same rule stands in both.
RULE = '\n[[channels]]\npattern = "bench"\npublish = true\n'
FIGURES = {
    "app": "publish by the app (shared token), µs",
    "client": "publish by a client (a token in each request), µs",
    "one": "a million deliveries, one message in flight, s",
    "many": "a million deliveries, many waiting, s",
}


def token():
    """A JWT with grants for several patterns, of which the last one fits."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    channels = {f"team.{number}.>": ["sub", "history"] for number in range(8)} | {"bench": ["sub", "pub", "history"]}
    claims = {"sub": "ann", "exp": int(time.time()) + 3600, "channels": channels}
    text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(SECRET.encode(), text, hashlib.sha256).digest())).decode()


def figures_of(bench, permitted, app_token):
    """CPU of one fresh node, in the units of `FIGURES`."""
    config, bearer, app_bearer = RULE, [], []
    if permitted:
        config = f'\n[app]\ntoken_file = "{app_token}"\n[auth]\nsecret = "{SECRET}"\n' + RULE
        bearer = ["Authorization: Bearer " + token()]
        app_bearer = ["Authorization: Bearer " + APP_TOKEN]
    headers = lambda option, values: [word for value in values for word in (option, value)]
    seconds = bench.seconds / 2
    with bench.sidewire(config=config) as server:
        fan_out = generate(server, bench.cpus, SUBSCRIBERS, f"~closed:4:1,closed:1:{seconds},closed:64:{seconds}",
                           extra=headers("--sub-header", bearer) + headers("--pub-header", app_bearer))
        publish = f"~closed:1000000:0.5,closed:1000000:{seconds}"
        none = ["--pub-path", "/v1/publish?ack=none"]
        by_app = generate(server, bench.cpus, 0, publish, connections=64, extra=none + headers("--pub-header", app_bearer))
        at_client = servers.Server(server.process, server.address, server.address, server.arguments)
        by_client = generate(at_client, bench.cpus, 0, publish, connections=64,
                             extra=none + headers("--pub-header", bearer))
    return {
        "app": phase(by_app, "closed:")["cpu_us_per_pub"],
        "client": phase(by_client, "closed:")["cpu_us_per_pub"],
        "one": phase(fan_out, "closed:1:")["cpu_s_per_m"],
        "many": phase(fan_out, "closed:64:")["cpu_s_per_m"],
    }


def measure(bench, progress):
    """Rows of the table: each figure without and with permissions, and the median of the ratios of all rounds."""
    rounds = []
    with servers.folder() as path:
        app_token = path / "app-token"
        app_token.write_text(APP_TOKEN)
        app_token.chmod(0o600)
        for number in range(ROUNDS):
            progress(f"permissions: round {number + 1} of {ROUNDS}")
            # Whatever the machine does meanwhile: each goes first as often as the other.
            order = (False, True) if number % 2 == 0 else (True, False)
            rounds.append({permitted: figures_of(bench, permitted, app_token) for permitted in order})
    rows = []
    for key, name in FIGURES.items():
        ratios = [each[True][key] / each[False][key] for each in rounds]
        rows.append([name, *(f"{median([each[permitted][key] for each in rounds]):.2f}" for permitted in (False, True)),
                     f"{median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}"])
    return rows
