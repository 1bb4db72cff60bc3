"""A server made with the official Python package, with the tools that tests need: `server.py stdio` or `server.py PORT`."""

import json
import os
import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ListToolsResult, ToolAnnotations

PAGE = 2


class Paged(MCPServer):
    """Lists its tools two at a time."""

    async def _handle_list_tools(self, ctx, params):
        tools = await self.list_tools()
        start = int(params.cursor) if params is not None and params.cursor else 0
        more = str(start + PAGE) if start + PAGE < len(tools) else None
        return ListToolsResult(tools=tools[start : start + PAGE], next_cursor=more)


server = Paged("tests")


def note(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def process() -> str:
    """Tells the id of the process and its environment."""
    return json.dumps({"pid": os.getpid(), "env": dict(os.environ)})


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def meta(ctx: Context) -> str:
    """Tells what came along with the call."""
    request = ctx.request_context.request
    authorization = None if request is None else request.headers.get("authorization")
    return json.dumps({"meta": dict(ctx.request_context.meta or {}), "authorization": authorization})


@server.tool(name="odd.name:here")
def odd(text: str) -> str:
    """Has a name that models do not take."""
    return text


@server.tool()
async def wait(path: str, ctx: Context) -> str:
    """Reports progress, then waits until it is cancelled."""
    try:
        note(path, "begun")
        await ctx.report_progress(1, 3, "one")
        await ctx.report_progress(2, 3, "two")
        await anyio.sleep_forever()
    except BaseException:
        note(path, "cancelled")
        raise
    return "never"


@server.tool()
def die(path: str) -> str:
    """Ends the process in the middle of the call."""
    note(path, "died")
    os._exit(1)


@server.tool()
async def grow(ctx: Context) -> str:
    """Adds a tool, and tells that there are others now."""

    def grown() -> str:
        """Was not there before."""
        return "grown"

    server.add_tool(grown)
    await ctx.session.send_tool_list_changed()
    return "done"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        print("a word on standard error", file=sys.stderr)
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
