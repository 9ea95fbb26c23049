import json
import subprocess
import sys


def test_importing_the_sdk_loads_no_runtime_no_server_and_no_federation():
    code = "import sys, json, bedside_client; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = {name.partition(".")[0] for name in json.loads(output)}
    heavy = {"onnxruntime", "flwr", "torch", "pandas", "fastapi", "sqlalchemy"}
    servers = {"audit", "bedside", "coordinator", "inference_node", "policies", "secure_gateway"}
    assert loaded & (heavy | servers) == set()
