"""The gRPC side from outside: codes, problems, metadata, limits, and a record for each call."""

import subprocess

import grpc
import pytest
from grpc import StatusCode
from support import GatewayProcess, make_site, publish_linear, records_of
from support.grpc import Caller, ModelInferRequest, bearer, row
from support.http2 import exchange, headers_of
from support.sites import free_port

from audit.records import Outcome, Problem
from bedside.children import bedside_command
from bedside.up import environment_of
from inference_node.schema import SERVICE, message_class, method_names
from policies import AssertedFacts, DataClass, Role
from secure_gateway.rpc.status import code_of

LIMIT = 4096


def grpc_site(folder, **gateway):
    site = make_site(folder, gateway={"grpc_port": free_port(), **gateway})
    publish_linear(site, folder)
    return site


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(grpc_site(folder, body_limit_bytes=LIMIT), folder) as running:
        yield running


@pytest.fixture(scope="module")
def caller(gateway):
    with Caller(gateway.grpc_address, gateway.token()) as made:
        yield made


def changed(**fields):
    request = row()
    for name, value in fields.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        else:
            setattr(request.inputs[0], name, value)
    return request


def asking_for(output):
    request = row()
    request.outputs.add(name=output)
    return request


INFER = "ModelInfer"
CASES = {
    "bytes that are no message": (
        INFER, b"\xff\xff", (), StatusCode.INVALID_ARGUMENT, "body-malformed"),
    "a message without inputs": (
        INFER, ModelInferRequest(model_name="breast-cancer"), (),
        StatusCode.INVALID_ARGUMENT, "body-malformed"),
    "contents that contradict the shape": (
        INFER, changed(shape=[2, 3]), (), StatusCode.INVALID_ARGUMENT, "body-malformed"),
    "a wrong shape": (INFER, changed(shape=[3]), (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "a wrong datatype": (
        INFER, changed(datatype="INT32"), (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "an unknown datatype": (
        INFER, changed(datatype="FP8"), (), StatusCode.INVALID_ARGUMENT, "body-malformed"),
    "an unknown input": (
        INFER, changed(name="z"), (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "an unknown output": (
        INFER, asking_for("z"), (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "an unknown model": (INFER, row(model="nothing"), (), StatusCode.NOT_FOUND, "model-unknown"),
    "no model": (INFER, row(model=""), (), StatusCode.NOT_FOUND, "model-unknown"),
    "an unknown version": (
        INFER, row(model_version="9"), (), StatusCode.NOT_FOUND, "model-unknown"),
    "a strange fact": (
        INFER, row(), (("bedside-purpose", "FUN"),), StatusCode.INVALID_ARGUMENT, "facts-invalid"),
    "a fact that is sent twice": (
        INFER, row(), (("bedside-jurisdiction", "DE"), ("bedside-jurisdiction", "US")),
        StatusCode.INVALID_ARGUMENT, "facts-invalid"),
    "an endless subject": (
        INFER, row(), (("bedside-subject", "x" * 300),), StatusCode.INVALID_ARGUMENT, "facts-invalid"),
    "data that may not be here": (
        INFER, row(), (("bedside-jurisdiction", "DE"),),
        StatusCode.PERMISSION_DENIED, "policy-refused"),
    "a method that does not exist": (
        "/inference.GRPCInferenceService/ModelGuess", b"", (),
        StatusCode.UNIMPLEMENTED, "not-found"),
    "a service that does not exist": ("/x", b"", (), StatusCode.UNIMPLEMENTED, "not-found"),
    "shared memory": (
        "SystemSharedMemoryStatus", None, (), StatusCode.UNIMPLEMENTED, "method-not-allowed"),
    "log settings": ("LogSettings", b"", (), StatusCode.UNIMPLEMENTED, "method-not-allowed"),
    "statistics without right to them": (
        "ModelStatistics", None, (), StatusCode.PERMISSION_DENIED, "policy-refused"),
    "another repository": (
        "RepositoryIndex", message_class("RepositoryIndexRequest")(repository_name="x"), (),
        StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "a configuration of the caller's own": (
        "RepositoryModelLoad",
        message_class("RepositoryModelLoadRequest")(
            model_name="breast-cancer", parameters={"config": {"string_param": "{}"}}),
        (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "another repository to load from": (
        "RepositoryModelLoad",
        message_class("RepositoryModelLoadRequest")(repository_name="x", model_name="breast-cancer"),
        (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "another repository to unload from": (
        "RepositoryModelUnload",
        message_class("RepositoryModelUnloadRequest")(repository_name="x", model_name="breast-cancer"),
        (), StatusCode.INVALID_ARGUMENT, "input-invalid"),
    "metadata of an unknown model": (
        "ModelMetadata", message_class("ModelMetadataRequest")(name="nothing"), (),
        StatusCode.NOT_FOUND, "model-unknown"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_calls(caller, case):
    method, message, metadata, code, problem = CASES[case]
    answer = caller.call(method, message, metadata)
    assert answer.code is code, answer.details
    assert answer.trailing["bedside-problem"] == problem
    assert answer.trailing["bedside-record"] in answer.details
    assert caller.infer().code is StatusCode.OK


def test_each_of_them_left_a_record(tmp_path):
    site = grpc_site(tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        with Caller(gateway.grpc_address, gateway.token()) as caller:
            for method, message, metadata, _, _ in CASES.values():
                caller.call(method, message, metadata)
        with Caller(gateway.grpc_address) as stranger:
            stranger.infer()
            with pytest.raises(grpc.RpcError) as refused:
                stranger.stream([row()])
            assert refused.value.code() is StatusCode.UNAUTHENTICATED
    records = records_of(site)
    problems = [problem for *_, problem in CASES.values()]
    assert [r.problem for r in records] == [*problems, "token-missing", "token-missing"]
    assert all(record.outcome is Outcome.REFUSED for record in records)


def test_every_problem_has_a_code():
    codes = {code_of(problem) for problem in Problem}
    assert not {StatusCode.OK, StatusCode.UNKNOWN} & codes
    assert len(codes) > 9


@pytest.mark.parametrize("token", [None, "", "not.a.token", "x" * 9000])
@pytest.mark.parametrize("method", [INFER, "ModelMetadata", "RepositoryModelUnload"])
def test_callers_without_a_good_token(gateway, token, method):
    with Caller(gateway.grpc_address, token) as caller:
        answer = caller.call(method)
    assert answer.code is StatusCode.UNAUTHENTICATED
    assert answer.trailing["bedside-problem"].startswith("token-")


def test_an_expired_token(gateway):
    with Caller(gateway.grpc_address, gateway.token(hours=-1)) as caller:
        assert caller.infer().trailing["bedside-problem"] == "token-expired"


def test_a_token_that_is_sent_twice(gateway, caller):
    answer = caller.infer(metadata=(bearer(gateway.token()),))
    assert (answer.code, answer.trailing["bedside-problem"]) == (
        StatusCode.INVALID_ARGUMENT, "facts-invalid",
    )  # fmt: skip


def test_a_message_of_a_stranger_is_not_read(gateway):
    large = row([0.5] * LIMIT)
    with Caller(gateway.grpc_address) as stranger:
        assert stranger.infer(large).code is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_past_the_limit_is_refused_and_recorded(tmp_path, compression):
    site = grpc_site(tmp_path, body_limit_bytes=LIMIT)
    # Compressed, it is far below the limit.
    large = row([0.0] * 1_000_000)
    with (
        GatewayProcess(site, tmp_path) as gateway,
        Caller(gateway.grpc_address, gateway.token()) as caller,
    ):
        answer = caller.infer(large, compression=compression)
        assert answer.code is StatusCode.RESOURCE_EXHAUSTED
        assert caller.infer(compression=compression).code is StatusCode.OK
    refused, served = records_of(site)
    assert (refused.problem, refused.principal) == (Problem.BODY_MALFORMED, "dr.adams")
    assert served.outcome is Outcome.SERVED
    assert "Traceback" not in gateway.log.read_text()


def test_what_a_token_asserts_outranks_what_the_caller_claims(gateway):
    asserted = AssertedFacts(jurisdiction="DE", data_class=DataClass.PHI)
    token = gateway.site.token_issuer().issue(
        "dr.adams", [Role.CLINICIAN], lifetime_s=60, asserted=asserted
    )
    with Caller(gateway.grpc_address, token) as caller:
        answer = caller.infer(metadata=(("bedside-jurisdiction", "US-CA"),))
    assert answer.code is StatusCode.PERMISSION_DENIED
    assert answer.trailing["bedside-policies"] == "gdpr-transfer"
    assert "GDPR Art. 44" in answer.details


def test_an_answer_says_where_it_ran_and_which_record_holds_it(caller):
    answer = caller.infer(row(id="7"))
    parameters = answer.message.parameters
    assert answer.message.id == "7"
    assert parameters["bedside_policies"].string_param == "hipaa-treatment"
    for name in ("record", "placement"):
        assert parameters[f"bedside_{name}"].string_param == answer.trailing[f"bedside-{name}"]
    assert answer.trailing["bedside-placement"] == "node:local"


def test_past_its_limit_a_caller_is_told_when_to_come_again(tmp_path):
    limits = {"requests_per_s": 0.01, "burst": 1}
    with (
        GatewayProcess(grpc_site(tmp_path, limits=limits), tmp_path) as gateway,
        Caller(gateway.grpc_address, gateway.token()) as caller,
    ):
        assert caller.infer().code is StatusCode.OK
        answer = caller.infer()
    assert answer.code is StatusCode.RESOURCE_EXHAUSTED
    wait_s = int(answer.trailing["retry-after"])
    assert 0 < wait_s <= 100
    assert answer.trailing["grpc-retry-pushback-ms"] == str(wait_s * 1000)


def test_probes_are_open(gateway):
    with Caller(gateway.grpc_address) as stranger:
        assert stranger.call("ServerLive").message.live
        assert stranger.call("ServerReady").message.ready
        assert stranger.call("ServerMetadata").message.name == "bedside"


def test_every_method_of_the_service_is_answered(caller):
    answers = {name: caller.call(name, b"").code for name in method_names() if "Stream" not in name}
    assert len(answers) == 19
    assert not {StatusCode.UNKNOWN, StatusCode.INTERNAL} & set(answers.values())
    unimplemented = {name for name, code in answers.items() if code is StatusCode.UNIMPLEMENTED}
    assert unimplemented == {
        name for name in method_names() if "SharedMemory" in name or "Settin" in name
    }


def test_facts_that_are_no_text_are_refused(gateway):
    more = [
        (b"authorization", b"Bearer " + gateway.token().encode()),
        (b"bedside-subject", "drüben".encode("latin-1")),
    ]
    path = f"/{SERVICE}/ModelInfer".encode()
    reply = exchange(gateway.grpc_address, headers_of(path, *more), row().SerializeToString())
    assert b"facts-invalid" in reply
    assert "Invalid encoding" not in gateway.log.read_text()


@pytest.mark.parametrize("taken", ["grpc_port", "port"])
def test_a_port_that_is_taken_is_one_clear_line(gateway, tmp_path, taken):
    config = gateway.site.config.gateway
    ports = {"port": free_port(), "grpc_port": free_port()}
    ports[taken] = getattr(config, taken)
    other = make_site(tmp_path, gateway={"grpc_port": ports["grpc_port"]})
    settings = other.config.gateway.model_copy(update=ports)
    environment = environment_of(other.config.model_copy(update={"gateway": settings}))
    done = subprocess.run(
        bedside_command("gateway"), env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert str(ports[taken]) in done.stderr
    # At debug level what was withheld may be counted before it.
    lines = [line for line in done.stderr.splitlines() if "bedside.telemetry: withheld" not in line]
    assert len(lines) == 1
