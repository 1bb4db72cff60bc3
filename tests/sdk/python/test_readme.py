"""The Python of the README does what it says: block after block, as a reader would type them."""

from __future__ import annotations

import base64
import hmac
import re
import time
import typing
from pathlib import Path

from conftest import HERE

README = Path(__file__).parents[3] / "README.md"


def test_the_code_of_the_readme_runs(capsys: typing.Any) -> None:
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) >= 6
    names: dict[str, typing.Any] = {}
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        source = block.group(1).replace("http://127.0.0.1:8283", HERE)
        exec(compile("\n" * line + source, str(README), "exec"), names)
    said = capsys.readouterr().out
    assert "'temperatures'" not in said and '"temperatures":[-4]' in said
    assert "asking with a key of 15 characters" in said
    assert "\nrequires_approval\n" in said
    messages = list(names["client"].agents.messages.list(names["agent"].id, order="asc"))
    results = [one for item in messages if item.message_type == "tool_return_message" for one in item.tool_returns]
    assert [(one.status, one.tool_return) for one in results[1:]] == [
        ("success", results[0].tool_return), ("success", "Snow."),
    ]
    body, stamp, key = b'{"run_id": "run-1"}', str(int(time.time())), b"sixteen bytes or more"
    code = hmac.digest(key, b"run-1." + stamp.encode() + b"." + body, "sha256")
    signature = "v1," + base64.b64encode(code).decode()
    headers = {"webhook-id": "run-1", "webhook-timestamp": stamp, "webhook-signature": signature}
    for secret in (key.decode(), "whsec_" + base64.b64encode(key).decode()):
        assert names["is_genuine"](headers, body, secret)
        assert not names["is_genuine"](headers, body + b" ", secret)
    assert not names["is_genuine"]({**headers, "webhook-timestamp": "1"}, body, key.decode())
    assert names["shown"], "the last example shows text"
