"""Keys and tokens by PyJWT: a line of JSON asks, a line of JSON answers."""

import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import sys

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt import algorithms

SECRET = "a secret for tests, of more than 64 bytes, so that HS512 is content too"
MAKERS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-other": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
KEYS = {}


def key(name):
    if name == "secret":
        return SECRET
    if name not in KEYS:
        KEYS[name] = MAKERS[name]()
    return KEYS[name]


def pem(name):
    return key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(name):
    public = key(name).public_key()
    maker = {"rsa": algorithms.RSAAlgorithm, "ed": algorithms.OKPAlgorithm, "p2": algorithms.ECAlgorithm}
    maker["p3"] = maker["p2"]
    made = next(made for begin, made in maker.items() if name.startswith(begin))
    return json.loads(made.to_jwk(public))


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header, claims, secret):
    """Signed by hand with HMAC, as PyJWT would refuse to, or not signed at all."""
    message = encoded(json.dumps(header).encode()) + "." + encoded(json.dumps(claims).encode())
    if secret is None:
        return message + "."
    return message + "." + encoded(hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest())


def certificate(serial):
    """A certificate for 127.0.0.1, and that of who signed it: the same for all of one run."""
    if "ca" not in KEYS:
        KEYS["ca"] = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.timezone.utc)

    def signed(subject, public, extensions):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(public)
        builder = builder.serial_number(serial).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        made = builder.sign(KEYS["ca"], hashes.SHA256())
        return made.public_bytes(Encoding.PEM).decode()

    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return {
        "ca": signed(authority, KEYS["ca"].public_key(), [(x509.BasicConstraints(True, None), True)]),
        "cert": signed(x509.Name([]), key.public_key(), [(names, True)]),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }


for line in sys.stdin:
    asked = json.loads(line)
    if asked["what"] == "token":
        answer = jwt.encode(asked["claims"], key(asked["key"]), asked["algorithm"], asked["headers"])
    elif asked["what"] == "forged":
        answer = forged(asked["headers"], asked["claims"], asked["secret"])
    elif asked["what"] == "certificate":
        answer = certificate(asked["serial"])
    elif asked["what"] == "pem":
        answer = pem(asked["key"])
    else:
        answer = jwk(asked["key"])
    print(json.dumps(answer), flush=True)
