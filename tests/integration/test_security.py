"""Kafka and Valkey behind TLS and passwords, with certificates made here. A wrong secret is a clear error in
seconds, and no secret stands in any text of ours."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from typer.testing import CliRunner

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan, read_all
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.adapters.local.embedded import EmbeddedStore
from tagstream.adapters.redis.store import RedisStore
from tagstream.cli.main import app
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.events import ProductTags
from tagstream.core.ports import KafkaAddress, OutRecord, TopicPartition, Write
from tagstream.ops.audit import read_tags
from tagstream.settings import Settings, load_settings
from tagstream.wiring import build_publisher, build_store

pytest.importorskip("cryptography", reason="certificates are made with the package cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

USER, SECRET = "tagger", "s3cret-of-the-broker"
STORE_SECRET = "p@ss/of:the store"
KEYSTORE_SECRET = "keystore-secret"
TAGS = ProductTags(
    product_id="p1",
    revision=0,
    event_version=1,
    model_version="m",
    model_generation=1,
    taxonomy_version="t",
    tagged_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    image="none",
    tags=(),
)


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's certificate for 127.0.0.1, and an authority that nobody knows."""

    authority: Path
    stranger: Path
    server: Path
    keystore: Path


def _authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certificate(name, key, name, key, is_authority=True)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    made = Certificates(*(folder / name for name in ("ca.pem", "stranger.pem", "server.pem", "server.p12")))
    pem = serialization.Encoding.PEM
    ca_key, ca = _authority("test authority")
    made.authority.write_bytes(ca.public_bytes(pem))
    made.stranger.write_bytes(_authority("stranger")[1].public_bytes(pem))
    key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate("127.0.0.1", key, "test authority", ca_key)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made.server.write_bytes(private + server.public_bytes(pem))
    encrypted = serialization.BestAvailableEncryption(KEYSTORE_SECRET.encode())
    made.keystore.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, server, [ca], encrypted))
    return made


def refusal(attempt: Callable[[], object], *secrets: str, within_s: float = 20.0) -> str:
    """The words of the error that it must raise, in time and without the secrets."""
    started_s = time.monotonic()
    with pytest.raises((Unavailable, BadSettings)) as caught:
        attempt()
    assert time.monotonic() - started_s < within_s
    words = f"{caught.value} {caught.value!r}"
    assert not [secret for secret in secrets if secret in words]
    return words


# Kafka


@pytest.fixture(scope="module")
def kafka(
    kafka_home: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApacheBroker]:
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    properties = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(certificates.keystore),
        "ssl.keystore.password": KEYSTORE_SECRET,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f'{module} required username="{USER}" password="{SECRET}";'
        ),
    }
    folder = tmp_path_factory.mktemp("secure")
    options: dict[str, Any] = {"protocol": "SASL_SSL", "scram_users": {USER: SECRET}}
    with ApacheBroker(folder, home=kafka_home, properties=properties, **options) as broker:
        admin = TopicAdmin(KafkaAddress(broker.address, _client(certificates)), timeout_s=5.0)
        deadline_s = time.monotonic() + 60
        while not _is_created(admin):
            assert time.monotonic() < deadline_s, "the broker never took the topic"
        yield broker


def _is_created(admin: TopicAdmin) -> bool:
    with contextlib.suppress(Unavailable):
        admin.create([TopicPlan("product-events", 1)])
        return "product-events" in admin.partitions()
    return False


def _client(certificates: Certificates, **changed: str | None) -> dict[str, str]:
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": SECRET,
        "ssl.ca.location": str(certificates.authority),
    }
    return {**config, **{name.replace("_", "."): value for name, value in changed.items() if value}}


def settings_for(
    monkeypatch: pytest.MonkeyPatch, address: str, config: dict[str, str], redis_url: str = ""
) -> Settings:
    monkeypatch.setenv("TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS", address)
    monkeypatch.setenv("TAGSTREAM_KAFKA_CONFIG", json.dumps(config))
    monkeypatch.setenv("TAGSTREAM_REDIS_URL", redis_url or "redis://127.0.0.1:1/0")
    return load_settings()


class Listener:
    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None: ...

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None: ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None: ...


def polled(source: KafkaSource, timeout_s: float) -> list[Any]:
    """The first records that come; none if none come in time."""
    deadline_s = time.monotonic() + timeout_s
    source.subscribe(Listener())
    try:
        while not (records := source.poll(10, 0.2)) and time.monotonic() < deadline_s:
            pass
        if records:
            source.commit({TopicPartition("product-events", 0): records[-1].offset + 1}, wait=True)
        return records
    finally:
        source.close()


def test_records_and_offsets_go_over_tls_with_a_password(
    kafka: ApacheBroker, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(monkeypatch, kafka.address, _client(certificates))
    publisher = build_publisher(settings)
    publisher.publish([OutRecord(settings.topics.events, b"k", b"v")])
    publisher.close()
    found = read_all(settings.kafka, settings.topics.events)
    assert [record.value for record in found][-1:] == [b"v"]
    source = KafkaSource(settings.kafka, "g", settings.topics.events)
    assert [record.value for record in polled(source, 30.0)][-1:] == [b"v"]


def test_the_audit_and_the_lag_are_read_over_tls_with_a_password(
    kafka: ApacheBroker, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAGSTREAM_PREFIX", "audited-")
    settings = settings_for(monkeypatch, kafka.address, _client(certificates))
    topics = settings.topics
    TopicAdmin(settings.kafka).create([TopicPlan(topics.tags, 1), TopicPlan(topics.events, 1)])
    with contextlib.closing(build_publisher(settings)) as publisher:
        publisher.publish([OutRecord(topics.tags, b"p", None, (("revision", b"1"),))])
    assert read_tags(settings).last == {"p": None}
    with contextlib.closing(GroupWatch(settings.kafka, "nobody", topics.events)) as watch:
        assert [progress.partition for progress in watch.progress()] == [0]


@pytest.fixture(params=["wrong password", "unknown user", "untrusted authority", "no TLS"])
def refused(request: pytest.FixtureRequest, certificates: Certificates) -> dict[str, str]:
    """Client settings that the broker, or the client itself, must refuse."""
    wrong: dict[str, dict[str, str]] = {
        "wrong password": {"sasl_password": "wr0ng-password"},
        "unknown user": {"sasl_username": "nobody"},
        "untrusted authority": {"ssl_ca_location": str(certificates.stranger)},
        "no TLS": {"security_protocol": "SASL_PLAINTEXT"},
    }
    return _client(certificates, **wrong[request.param])


def test_who_is_refused_by_kafka_hears_so_in_seconds_and_without_the_secret(
    kafka: ApacheBroker, refused: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(monkeypatch, kafka.address, refused)
    secrets = (SECRET, refused["sasl.password"])

    refusal(lambda: TopicAdmin(settings.kafka, timeout_s=4.0).partitions(), *secrets)
    publisher = KafkaPublisher(settings.kafka, delivery_timeout_s=3.0)
    refusal(lambda: publisher.publish([OutRecord("product-events", b"k", b"v")]), *secrets)
    publisher.close()
    source = KafkaSource(settings.kafka, "refused", "product-events")
    words = refusal(lambda: polled(source, 15.0), *secrets)
    assert "broker" in words


def test_an_authority_that_is_no_file_is_a_wrong_setting(
    kafka: ApacheBroker, certificates: Certificates, tmp_path: Path
) -> None:
    config = _client(certificates, ssl_ca_location=str(tmp_path / "missing.pem"))
    address = KafkaAddress(kafka.address, config)
    for build in (lambda: KafkaPublisher(address), lambda: KafkaSource(address, "g", "product-events")):
        assert "ssl.ca.location" in refusal(build, SECRET)


# Valkey


class TlsFront(socketserver.ThreadingTCPServer):
    """TLS before a port without it: the bundled Valkey is built without TLS."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind = ("127.0.0.1", port)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(certificate)


class _Forward(socketserver.BaseRequestHandler):
    server: TlsFront

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),  # a client that does not trust us hangs up
            self.server.tls.wrap_socket(self.request, server_side=True) as front,
            socket.create_connection(self.server.behind) as back,
        ):
            threading.Thread(target=_pump, args=(back, front), daemon=True).start()
            _pump(front, back)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """A Valkey with a user for us, one that may only read, and none without a password."""
    with EmbeddedStore(tmp_path_factory.mktemp("guarded")) as store, redis.Redis.from_url(store.url) as admin:
        ours = ["~tagstream:*", "+@read", "+@write", "+@scripting", "+@connection", "+info", "+time"]
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{STORE_SECRET}", *ours)
        rights = ["~tagstream:*", "+@read", "+@connection"]
        admin.execute_command("ACL", "SETUSER", "reader", "on", f">{STORE_SECRET}", *rights)
        admin.execute_command("ACL", "SETUSER", "default", "off")
        yield store


@pytest.fixture(scope="module")
def tls_port(guarded: EmbeddedStore, certificates: Certificates) -> Iterator[int]:
    with TlsFront(guarded.port, certificates.server) as front:
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield front.server_address[1]
        front.shutdown()
        thread.join()


def redis_url(port: int, authority: Path | None, user: str = USER, secret: str = STORE_SECRET) -> str:
    account = f"{user}:{quote(secret, safe='')}@" if user else ""
    tail = f"?ssl_ca_certs={quote(str(authority))}" if authority else ""
    return f"{'rediss' if authority else 'redis'}://{account}127.0.0.1:{port}/0{tail}"


def put(store: RedisStore) -> str:
    try:
        return store.put([Write(TAGS, 0, False)])[0].verdict
    finally:
        store.close()


@pytest.mark.parametrize("over_tls", [True, False])
def test_a_user_with_rights_on_our_keys_alone_can_do_all_that_the_stream_does(
    guarded: EmbeddedStore,
    tls_port: int,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    over_tls: bool,
) -> None:
    url = redis_url(tls_port, certificates.authority) if over_tls else redis_url(guarded.port, None)
    settings = settings_for(monkeypatch, "127.0.0.1:1", {}, url)
    store = build_store(settings)
    store.initialise()
    assert store.check() == []
    assert store.find("colour", "Red", 10) == []
    assert store.halted() == ""
    assert put(store) in ("applied", "same")
    assert store.get(["p1"])[0] is not None


@pytest.mark.parametrize(
    ("user", "secret", "reason"),
    [
        (USER, "wr0ng/password", "invalid username-password"),
        ("", "", "Authentication required"),
        ("reader", STORE_SECRET, "has no permissions"),
    ],
    ids=["wrong password", "no password", "no rights"],
)
def test_who_is_refused_by_the_store_hears_why_and_never_the_password(
    tls_port: int, certificates: Certificates, user: str, secret: str, reason: str
) -> None:
    store = RedisStore(redis_url(tls_port, certificates.authority, user, secret), delete_marker_ttl_s=86_400)
    words = refusal(lambda: put(store), *filter(None, (secret, quote(secret, safe=""))))
    assert reason.lower() in words.lower()


def test_a_store_whose_certificate_nobody_vouches_for_is_refused(
    tls_port: int, certificates: Certificates
) -> None:
    store = RedisStore(redis_url(tls_port, certificates.stranger), delete_marker_ttl_s=86_400)
    assert "certificate verify failed" in refusal(lambda: put(store), STORE_SECRET)


# what is printed


def test_no_secret_is_printed_with_the_settings_or_by_check(
    kafka: ApacheBroker,
    tls_port: int,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = redis_url(tls_port, certificates.authority)
    settings = settings_for(monkeypatch, kafka.address, _client(certificates), url)
    done = CliRunner().invoke(app, ["check", "--replication", "1"])
    assert "store: " in done.output, "it got as far as the store"
    assert "kafka: Topic product-tags is missing" in done.output, "and Kafka let it in"
    for text in (done.output, repr(settings), str(settings), repr(done.exception)):
        assert SECRET not in text
        assert STORE_SECRET not in text
        assert quote(STORE_SECRET, safe="") not in text


def test_a_refused_check_names_both_systems_and_no_secret(
    kafka: ApacheBroker, tls_port: int, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _client(certificates, sasl_password="wr0ng-password")
    settings_for(
        monkeypatch, kafka.address, config, redis_url(tls_port, certificates.authority, secret="n0pe")
    )
    done = CliRunner().invoke(app, ["check", "--replication", "1"])
    assert done.exit_code == 1
    assert "kafka: Unavailable" in done.output
    assert "store: Unavailable" in done.output
    assert "wr0ng-password" not in done.output
    assert "n0pe" not in done.output
