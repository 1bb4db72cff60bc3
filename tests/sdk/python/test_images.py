"""Images in messages."""

from __future__ import annotations

import letta_client
import pytest
import strict
from letta_client import Letta
from letta_client.types import AgentState
from sending import WAYS, send

DATA = "iVBORw0KGgpyZXN0"
BASE64 = {"type": "base64", "media_type": "image/png", "data": DATA}
URL = {"type": "url", "url": f"data:image/png;base64,{DATA}"}


@pytest.mark.parametrize("way", WAYS)
def test_images_reach_the_model_and_stay_in_the_history(client: Letta, agent: AgentState, way: str) -> None:
    for source in (BASE64, URL):
        content = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
        said = send(client, agent.id, way, messages=[{"role": "user", "content": content}])
        assert "What is this? [image]" in said.text
        newest = next(item for item in client.agents.messages.list(agent.id) if item.message_type == "user_message")
        strict.message(newest)
        assert isinstance(newest.content, list)
        assert [part.type for part in newest.content] == ["text", "image"]
        kept = newest.content[1].source
        assert (kept.type, kept.media_type, kept.data) == ("base64", "image/png", DATA)


def test_input_may_be_an_image(client: Letta, agent: AgentState) -> None:
    said = send(client, agent.id, "tokens", input=[{"type": "image", "source": URL}])
    assert "[image]" in said.text


def test_images_that_are_none_are_refused(client: Letta, agent: AgentState) -> None:
    for url in ("data:image/png;base64,****", "file:///etc/passwd", "http://127.0.0.1:1/cat.png"):
        with pytest.raises(letta_client.BadRequestError):
            client.agents.messages.create(agent.id, input=[{"type": "image", "source": {"type": "url", "url": url}}])
    assert list(client.runs.list(agent_id=agent.id)) == []
