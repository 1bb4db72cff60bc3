"""Every method of the SDK that the server serves: how it is called, what comes back, and how it fails.

A row names the arguments; the method itself is found by the row's name, so that the same table is called with the
synchronous and with the asynchronous client.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
import uuid

import letta_client
from letta_client import Letta
from letta_client.types import AgentState
from sending import finished

Arguments = tuple[tuple[typing.Any, ...], dict[str, typing.Any]]

ABSENT = "00000000-0000-4000-8000-000000000000"
BAD = "nonsense"
NotFound = letta_client.NotFoundError
Malformed = letta_client.UnprocessableEntityError
BadRequest = letta_client.BadRequestError
Conflict = letta_client.ConflictError
WORDS = "[[demo tokens=3 delay_ms=1]]"
REMEMBER = '[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]'


def args(*positional: typing.Any, **named: typing.Any) -> Arguments:
    """Arguments of a call."""
    return positional, named


def absent(kind: str) -> str:
    """A well-formed id that nothing has."""
    return f"{kind}-{ABSENT}"


def unique(name: str) -> str:
    """A name that nobody else uses."""
    return f"{name}_{uuid.uuid4().hex[:10]}"


def source(name: str) -> str:
    """A Python tool."""
    return f'def {name}(city: str) -> str:\n    """Looks up the weather.\n\n    Args:\n        city: Where.\n    """\n    return "-4"\n'


class World:
    """Things that calls need, made when they are asked for and kept, unless they are made anew each time."""

    def __init__(self, client: Letta) -> None:
        self.client = client

    def new_agent(self, **more: typing.Any) -> AgentState:
        """An agent of one's own."""
        blocks = [{"label": "human", "value": "The human's name is Ada."}]
        return self.client.agents.create(**{"name": unique("surface"), "memory_blocks": blocks, **more})

    @functools.cached_property
    def state(self) -> AgentState:
        """An agent with a tool and a finished run."""
        return self.new_agent(tool_ids=[self.tool], tags=["surface"])

    @property
    def agent(self) -> str:
        """Its id."""
        return self.state.id

    @functools.cached_property
    def tool_name(self) -> str:
        """The name of its tool."""
        return unique("get_weather")

    @functools.cached_property
    def tool(self) -> str:
        """The id of its tool."""
        return self.client.tools.create(source_code=source(self.tool_name)).id

    def new_tool(self) -> str:
        """A tool of one's own."""
        return self.client.tools.create(source_code=source(unique("other"))).id

    @functools.cached_property
    def run(self) -> str:
        """A finished run of the agent, of two steps."""
        run = self.client.agents.messages.create_async(self.agent, messages=[{"role": "user", "content": REMEMBER}])
        return finished(self.client, run.id).id

    @functools.cached_property
    def step(self) -> str:
        """A step of the run."""
        return next(iter(self.client.runs.steps.list(self.run))).id

    @functools.cached_property
    def message(self) -> str:
        """A message of the run."""
        return next(iter(self.client.runs.messages.list(self.run))).id

    def new_block(self) -> str:
        """A block that no agent has."""
        return self.client.blocks.create(label=unique("notes"), value="Nothing yet.").id

    @functools.cached_property
    def block(self) -> str:
        """A block that the agent has."""
        block = self.new_block()
        self.client.agents.blocks.attach(block, agent_id=self.agent)
        return block

    def new_conversation(self) -> str:
        """A conversation of the agent."""
        return self.client.conversations.create(agent_id=self.agent).id

    @functools.cached_property
    def conversation(self) -> str:
        """A conversation with a finished run."""
        conversation = self.new_conversation()
        list(self.client.conversations.messages.create(conversation, input=WORDS, background=True))
        return conversation

    @functools.cached_property
    def conversation_run(self) -> str:
        """The run of that conversation."""
        return next(iter(self.client.runs.list(conversation_id=self.conversation))).id

    def hanging(self, agent: str | None = None) -> str:
        """An agent with a run that goes on until it is cancelled."""
        agent = agent or self.new_agent().id
        self.client.agents.messages.create_async(agent, messages=[{"role": "user", "content": "[[demo hang]]"}])
        return agent

    def hanging_conversation(self) -> str:
        """A conversation with a run that goes on until it is cancelled."""
        conversation = self.new_conversation()
        with self.client.conversations.messages.create(conversation, input="[[demo hang]]", background=True) as stream:
            next(iter(stream))
        return conversation

    def talked(self) -> str:
        """An agent with messages to summarise."""
        agent = self.new_agent().id
        for _ in range(6):
            self.client.agents.messages.create(agent, input="[[demo tokens=60 delay_ms=0]]")
        return agent

    def talked_conversation(self) -> str:
        """A conversation with messages to summarise."""
        conversation = self.new_conversation()
        for _ in range(6):
            list(self.client.conversations.messages.create(conversation, input="[[demo tokens=60 delay_ms=0]]"))
        return conversation


@dataclasses.dataclass(frozen=True)
class Row:
    """A method: the arguments of a call that succeeds, what is so after it, and calls that fail with their classes."""

    succeeds: typing.Callable[[World], Arguments]
    is_right: typing.Callable[[typing.Any, World], bool]
    fails: tuple[tuple[typing.Callable[[World], Arguments], type[Exception]], ...] = ()


def by_id(kind: str, **named: typing.Any) -> tuple[tuple[typing.Callable[[World], Arguments], type[Exception]], ...]:
    """The failures of a call that takes an id: none such, and no id at all."""
    malformed = BadRequest if kind == "run" else Malformed
    return (lambda _: args(absent(kind), **named), NotFound), (lambda _: args(BAD, **named), malformed)


def of_agent(argument: typing.Any) -> tuple[tuple[typing.Callable[[World], Arguments], type[Exception]], ...]:
    """The failures of a call that names an agent by keyword."""
    return (
        (lambda w: args(argument(w), agent_id=absent("agent")), NotFound),
        (lambda w: args(argument(w), agent_id=BAD), Malformed),
    )


def ends(reason: str) -> typing.Callable[[typing.Any, World], bool]:
    """A stream that ends for this reason."""
    return lambda items, _: [item.stop_reason for item in items if item.message_type == "stop_reason"] == [reason]


def ids(items: typing.Any) -> list[str]:
    """The ids of a list."""
    return [item.id for item in items]


def is_state(answer: typing.Any, _: World) -> bool:
    """The state of an agent."""
    return isinstance(answer, AgentState)


TABLE: dict[str, Row] = {
    # P0
    "agents.messages.stream": Row(
        lambda w: args(w.agent, input=WORDS, background=True, stream_tokens=True), ends("end_turn"),
        (*by_id("agent", input="hello"), (lambda w: args(w.agent, input="hello", max_steps=0), Malformed))),
    "agents.messages.create": Row(
        lambda w: args(w.agent, messages=[{"role": "user", "content": WORDS}]),
        lambda answer, _: answer.stop_reason.stop_reason == "end_turn" and answer.usage.step_count == 1,
        (*by_id("agent", input="hello"), (lambda w: args(w.agent), Malformed))),
    "agents.create": Row(
        lambda w: args(name=unique("made"), tags=["made"], memory_blocks=[{"label": "human", "value": "Ada"}]),
        lambda answer, _: answer.tags == ["made"] and answer.blocks[0].value == "Ada",
        ((lambda _: args(model="nobody/knows-this"), NotFound), (lambda _: args(name="a/b"), BadRequest),
         (lambda _: args(memory_blocks=[{"label": "human"}]), Malformed))),
    "agents.retrieve": Row(lambda w: args(w.agent), lambda answer, w: answer.id == w.agent, by_id("agent")),
    "agents.list": Row(
        lambda w: args(tags=w.state.tags, limit=1), lambda items, w: w.agent in ids(items),
        ((lambda _: args(after=absent("agent")), NotFound), (lambda _: args(limit=-1), Malformed))),
    "agents.update": Row(
        lambda w: args(w.new_agent().id, name="renamed", tags=["x"]),
        lambda answer, _: (answer.name, answer.tags) == ("renamed", ["x"]),
        (*by_id("agent", name="x"), (lambda w: args(w.agent, tool_rules=[{"type": "nonsense", "tool_name": "x"}]), Malformed))),
    "agents.delete": Row(lambda w: args(w.new_agent().id), lambda answer, _: "message" in answer, by_id("agent")),
    "agents.tools.attach": Row(
        lambda w: args(w.tool, agent_id=w.new_agent().id),
        lambda answer, w: answer is None or w.tool in ids(answer.tools),
        (*of_agent(lambda w: w.tool), (lambda w: args(absent("tool"), agent_id=w.agent), NotFound),
         (lambda w: args(BAD, agent_id=w.agent), Malformed))),
    "agents.tools.list": Row(
        lambda w: args(w.agent, limit=1), lambda items, w: w.tool in ids(items) and len(items) == 4, by_id("agent")),
    "agents.tools.update_approval": Row(
        lambda w: args("memory_insert", agent_id=w.new_agent().id, body_requires_approval=True),
        lambda answer, _: answer is None or answer.tool_rules[0].type == "requires_approval",
        ((lambda _: args("memory_insert", agent_id=absent("agent"), body_requires_approval=True), NotFound),
         (lambda w: args("no_such_tool", agent_id=w.agent, body_requires_approval=True), NotFound),
         (lambda w: args("memory_insert", agent_id=w.agent, body_requires_approval="maybe"), Malformed))),
    "tools.create": Row(
        lambda w: args(source_code=source("made"), tags=["made"]), lambda answer, _: answer.name == "made",
        ((lambda _: args(source_code="def f(x):\n    return x\n"), letta_client.APIStatusError),
         (lambda _: args(source_code=source("made"), return_char_limit=0), Malformed))),
    "tools.upsert": Row(
        lambda w: args(source_code=source(w.tool_name), description="Changed."),
        lambda answer, w: answer.id == w.tool and answer.description == "Changed.",
        ((lambda _: args(source_code=source("made"), source_type="cobol"), Malformed),)),
    "tools.list": Row(
        lambda w: args(tool_ids=[w.tool, w.new_tool()], limit=1), lambda items, w: len(items) == 2 and w.tool in ids(items),
        ((lambda _: args(after=absent("tool")), NotFound), (lambda _: args(limit=-1), Malformed),
         (lambda _: args(tool_types=["nonsense"]), BadRequest))),
    "tools.retrieve": Row(lambda w: args(w.tool), lambda answer, w: answer.name == w.tool_name, by_id("tool")),
    "models.list": Row(
        lambda _: args(provider_category=["base"]), lambda items, _: "holdfast/demo" in [item.handle for item in items],
        ((lambda _: args(provider_category=["nonsense"]), Malformed),)),
    "health": Row(lambda _: args(), lambda answer, _: answer.status == "ok" and bool(answer.version)),
    # P1
    "runs.list": Row(
        lambda w: args(agent_id=w.agent if w.run else "", statuses=["completed"], limit=1), lambda items, w: w.run in ids(items),
        ((lambda _: args(after=absent("run")), NotFound), (lambda _: args(statuses=["nonsense"]), Malformed),
         (lambda _: args(limit=0), Malformed))),
    "runs.retrieve": Row(lambda w: args(w.run), lambda answer, w: answer.id == w.run, by_id("run")),
    "runs.messages.list": Row(
        lambda w: args(w.run, limit=1),
        lambda items, _: [item.message_type for item in items]
        == ["user_message", "tool_call_message", "tool_return_message", "assistant_message"],
        (*by_id("run"), (lambda w: args(w.run, after=absent("message")), NotFound))),
    "runs.messages.stream": Row(
        lambda w: args(w.run, starting_after=2), ends("end_turn"),
        (*by_id("run"), (lambda w: args(w.run, poll_interval=0), Malformed), (lambda w: args(w.run, batch_size=0), Malformed))),
    "runs.steps.list": Row(
        lambda w: args(w.run, limit=1), lambda items, w: {item.run_id for item in items} == {w.run} and len(items) == 2,
        (*by_id("run"), (lambda w: args(w.run, limit=-1), Malformed))),
    "runs.usage.retrieve": Row(
        lambda w: args(w.run), lambda answer, _: answer.total_tokens == answer.prompt_tokens + answer.completion_tokens > 0,
        by_id("run")),
    "agents.messages.cancel": Row(
        lambda w: args(w.hanging()), lambda answer, _: list(answer.values()) == ["cancelled"],
        (*by_id("agent"), (lambda w: args(w.new_agent().id), Conflict))),
    "agents.messages.list": Row(
        lambda w: args(w.agent, limit=1, order="asc"), lambda items, w: w.message in ids(items),
        (*by_id("agent"), (lambda w: args(w.agent, after=absent("message")), NotFound),
         (lambda w: args(w.agent, include_return_message_types=["nonsense"]), Malformed))),
    "agents.messages.create_async": Row(
        lambda w: args(w.new_agent().id, input=WORDS), lambda answer, _: answer.status == "created" and answer.background,
        (*by_id("agent", input="hello"), (lambda w: args(w.agent, input=""), Malformed))),
    "conversations.messages.create": Row(
        lambda w: args(w.new_conversation(), input=WORDS, stream_tokens=True), ends("end_turn"),
        (*by_id("conv", input="hello"), (lambda w: args(w.conversation, input=""), Malformed),
         (lambda w: args(w.hanging_conversation(), input="hello"), Conflict))),
    "conversations.messages.stream": Row(
        lambda w: args(w.conversation, run_id=w.conversation_run), ends("end_turn"),
        (*by_id("conv"), (lambda w: args(w.new_conversation()), BadRequest))),
    "conversations.messages.list": Row(
        lambda w: args(w.conversation, limit=1, order="asc"),
        lambda items, _: [item.message_type for item in items if item.message_type != "system_message"]
        == ["user_message", "assistant_message"],
        (*by_id("conv"), (lambda w: args(w.conversation, after=absent("message")), NotFound))),
    "conversations.cancel": Row(
        lambda w: args(w.hanging_conversation()), lambda answer, _: list(answer.values()) == ["cancelled"],
        (*by_id("conv"), (lambda w: args(w.new_conversation()), Conflict))),
    "steps.list": Row(
        lambda w: args(agent_id=w.agent if w.run else "", limit=1), lambda items, w: w.step in ids(items),
        ((lambda _: args(after=absent("step")), NotFound), (lambda _: args(feedback="nonsense"), Malformed),
         (lambda _: args(start_date="nonsense"), Malformed))),
    "steps.retrieve": Row(lambda w: args(w.step), lambda answer, w: answer.run_id == w.run, by_id("step")),
    "agents.blocks.list": Row(
        lambda w: args(w.new_agent().id, limit=1), lambda items, _: [item.label for item in items] == ["human"],
        by_id("agent")),
    "agents.blocks.retrieve": Row(
        lambda w: args("human", agent_id=w.agent), lambda answer, _: answer.label == "human",
        (*of_agent(lambda _: "human"), (lambda w: args("no such label", agent_id=w.agent), NotFound))),
    "agents.blocks.update": Row(
        lambda w: args("human", agent_id=w.new_agent().id, value="Bo"), lambda answer, _: answer.value == "Bo",
        (*of_agent(lambda _: "human"), (lambda w: args("no such label", agent_id=w.agent, value="x"), NotFound),
         (lambda w: args("human", agent_id=w.agent, value="too long", limit=3), Malformed))),
    # P2
    "agents.messages.reset": Row(
        lambda w: args(w.talked()), lambda answer, _: answer is None or len(answer.message_ids) == 1,
        (*by_id("agent"), (lambda w: args(w.hanging()), Conflict))),
    "agents.messages.compact": Row(
        lambda w: args(w.talked()), lambda answer, _: answer.num_messages_after < answer.num_messages_before,
        (*by_id("agent"), (lambda w: args(w.new_agent().id), BadRequest),
         (lambda w: args(w.agent, compaction_settings={"mode": "nonsense"}), Malformed))),
    "agents.recompile": Row(
        lambda w: args(w.agent, dry_run=True), lambda answer, w: "Ada" in answer and w.agent in answer,
        (*by_id("agent"), (lambda w: args(w.agent, dry_run="maybe"), Malformed))),
    "agents.tools.detach": Row(
        lambda w: args(w.tool, agent_id=w.new_agent(tool_ids=[w.tool]).id),
        lambda answer, w: answer is None or w.tool not in ids(answer.tools),
        (*of_agent(lambda w: w.tool), (lambda w: args(absent("tool"), agent_id=w.agent), NotFound))),
    "agents.tools.run": Row(
        lambda w: args(w.tool_name, agent_id=w.agent, args={"city": "Oslo"}),
        lambda answer, _: (answer.status, answer.func_return) == ("success", "-4"),
        (*of_agent(lambda w: w.tool_name), (lambda w: args("no_such_tool", agent_id=w.agent), NotFound),
         (lambda w: args(w.tool_name, agent_id=w.agent, args="nonsense"), Malformed))),
    "agents.blocks.attach": Row(
        lambda w: args(w.new_block(), agent_id=w.new_agent().id), lambda answer, _: len(answer.blocks) == 2,
        (*of_agent(lambda w: w.block), (lambda w: args(absent("block"), agent_id=w.agent), NotFound),
         (lambda w: args(BAD, agent_id=w.agent), Malformed))),
    "agents.blocks.detach": Row(
        lambda w: args((agent := w.new_agent()).blocks[0].id, agent_id=agent.id), lambda answer, _: answer.blocks == [],
        (*of_agent(lambda w: w.block), (lambda w: args(absent("block"), agent_id=w.agent), NotFound))),
    "blocks.create": Row(
        lambda w: args(label=unique("made"), value="x", limit=10, tags=["made"]), lambda answer, _: answer.tags == ["made"],
        ((lambda _: args(label="x", value="too long", limit=3), Malformed), (lambda _: args(label="x", value=3), Malformed))),
    "blocks.retrieve": Row(lambda w: args(w.block), lambda answer, w: answer.id == w.block, by_id("block")),
    "blocks.update": Row(
        lambda w: args(w.new_block(), value="y"), lambda answer, _: answer.value == "y",
        (*by_id("block", value="y"), (lambda w: args(w.block, value="too long", limit=3), Malformed))),
    "blocks.list": Row(
        lambda w: args(limit=1, connected_to_agents_count_gt=0, label=w.client.blocks.retrieve(w.block).label),
        lambda items, w: ids(items) == [w.block],
        ((lambda _: args(after=absent("block")), NotFound), (lambda _: args(limit=-1), Malformed))),
    "blocks.delete": Row(lambda w: args(w.new_block()), lambda answer, _: answer is None or bool(answer), by_id("block")),
    "blocks.agents.list": Row(lambda w: args(w.block, limit=1), lambda items, w: ids(items) == [w.agent], by_id("block")),
    "tools.update": Row(
        lambda w: args(w.new_tool(), description="Changed.", tags=["x"]),
        lambda answer, _: (answer.description, answer.tags) == ("Changed.", ["x"]),
        (*by_id("tool", description="x"), (lambda w: args(w.tool, return_char_limit=0), Malformed))),
    "tools.delete": Row(lambda w: args(w.new_tool()), lambda answer, _: True, by_id("tool")),
    "messages.list": Row(
        lambda w: args(limit=1000, include_return_message_types=["user_message"] if w.run else []),
        lambda items, w: w.message in ids(items) and {item.message_type for item in items} == {"user_message"},
        ((lambda _: args(after=absent("message")), NotFound), (lambda _: args(limit=-1), Malformed))),
    "messages.retrieve": Row(
        lambda w: args(w.message), lambda items, w: set(ids(items)) == {w.message}, by_id("message")),
    "messages.search": Row(
        lambda w: args(query="fjords", agent_id=w.state.id if w.run else "", search_mode="fts"),
        lambda items, w: w.message in [item.message_id for item in items],
        ((lambda _: args(query=3), Malformed), (lambda _: args(query="x", search_mode="nonsense"), Malformed))),
    "runs.trace.retrieve": Row(
        lambda w: args(w.run, limit=10), lambda items, _: isinstance(items, list),
        (*by_id("run"), (lambda w: args(w.run, limit=0), Malformed))),
    "steps.messages.list": Row(
        lambda w: args(w.step, limit=1), lambda items, _: len(items) >= 1,
        (*by_id("step"), (lambda w: args(w.step, after=absent("message")), NotFound))),
    "steps.metrics.retrieve": Row(lambda w: args(w.step), lambda answer, w: answer.id == w.step, by_id("step")),
    "steps.trace.retrieve": Row(lambda w: args(w.step), lambda answer, _: True, by_id("step")),
    "steps.feedback.create": Row(
        lambda w: args(w.step, feedback="positive", tags=["x"]), lambda answer, _: answer.feedback == "positive",
        (*by_id("step", feedback="positive"), (lambda w: args(w.step, feedback="nonsense"), Malformed))),
    "conversations.create": Row(
        lambda w: args(agent_id=w.agent, summary="About fjords."),
        lambda answer, w: (answer.agent_id, answer.summary) == (w.agent, "About fjords."),
        ((lambda _: args(agent_id=absent("agent")), NotFound), (lambda _: args(agent_id=BAD), Malformed))),
    "conversations.retrieve": Row(
        lambda w: args(w.conversation), lambda answer, w: answer.id == w.conversation, by_id("conv")),
    "conversations.update": Row(
        lambda w: args(w.new_conversation(), summary="New."), lambda answer, _: answer.summary == "New.",
        (*by_id("conv", summary="x"), (lambda w: args(w.conversation, archived="maybe"), Malformed))),
    "conversations.list": Row(
        lambda w: args(agent_id=w.agent if w.conversation else "", limit=50), lambda items, w: w.conversation in ids(items),
        ((lambda _: args(after=absent("conv")), NotFound), (lambda _: args(limit=-1), Malformed))),
    "conversations.delete": Row(
        lambda w: args(w.new_conversation()), lambda answer, _: answer is None or bool(answer), by_id("conv")),
    "conversations.fork": Row(
        lambda w: args(w.conversation), lambda answer, w: answer.id != w.conversation and answer.agent_id == w.agent,
        by_id("conv")),
    "conversations.recompile": Row(lambda w: args(w.conversation), lambda answer, _: "Ada" in answer, by_id("conv")),
    "conversations.messages.compact": Row(
        lambda w: args(w.talked_conversation()), lambda answer, _: answer.num_messages_after < answer.num_messages_before,
        (*by_id("conv"), (lambda w: args(w.new_conversation()), BadRequest))),
    "tags.list": Row(
        lambda w: args(name=w.state.tags[0], limit=5), lambda items, _: items == ["surface"],
        ((lambda _: args(limit=-1), Malformed),)),
    "models.embeddings.list": Row(lambda _: args(), lambda items, _: isinstance(items, list)),
}
