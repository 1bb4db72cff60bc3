"""Runs one tool call. Given to the interpreter by `-c`, before any code of the tool.

Descriptor 0 is the channel: the call comes in by it as one JSON object up to its end, and one frame goes out by it. What
the tool prints goes to descriptors 1 and 2, so that it cannot be taken for a frame.
"""

import os
import sys


def main():
    # The channel moves away from where `input()` reads; everything that leaked into this process is closed.
    channel = os.dup(0)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.closerange(3, channel)
    os.closerange(channel + 1, 1 << 20)
    os.write(channel, b"+")

    import json

    with open(channel, "rb", closefd=False) as pipe:
        text = pipe.read()
    try:
        call = json.loads(text)
    except ValueError:
        # The worker is gone: nobody waits for this call.
        os._exit(1)
    del text

    most, most_trace = call["output_bytes"], call["trace_bytes"]
    # Given back when memory runs out, so that there is some left to say so.
    ballast = [bytearray(1 << 20)]
    try:
        head, body, trace = {"status": "returned"}, encode(result(call)), b""
    except BaseException as error:
        ballast.clear()
        head, body, trace = failure(error)
        body, trace = cut(body, most_trace), cut(trace, most_trace)
    head["bytes"] = len(body)
    body = cut(body, most)
    head.update(body=len(body), trace=len(trace))
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except BaseException:
            pass
    frame = memoryview(json.dumps(head).encode() + b"\n" + body + trace)
    while frame:
        frame = frame[os.write(channel, frame):]
    # Threads that still run end here, and nothing that the tool registered for the exit is executed.
    os._exit(0)


def result(call):
    import inspect
    import linecache
    import types
    import typing

    sys.stdout.reconfigure(line_buffering=True, errors="replace")
    sys.stderr.reconfigure(line_buffering=True, errors="replace")
    os.environ.update(call["environment"])
    sys.addaudithook(refuse(call["refusals"]))
    source, name = call["source"], call["function"]
    linecache.cache["tool.py"] = (len(source), None, source.splitlines(True), "tool.py")
    module = types.ModuleType("tool")
    sys.modules["tool"] = module
    exec(compile(source, "tool.py", "exec", dont_inherit=True), module.__dict__)
    function = module.__dict__.get(name)
    if not callable(function):
        raise NameError(f"the source defines no function '{name}'")
    arguments = call["arguments"]
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        hints = {}
    arguments = {key: shape(value, hints.get(key)) for key, value in arguments.items()}
    # Some tools are written for servers that hand the agent's state to them. There is none here.
    if "agent_state" not in arguments and "agent_state" in inspect.signature(function).parameters:
        arguments["agent_state"] = None
    value = function(**arguments)
    if inspect.isawaitable(value):
        import asyncio

        async def wait():
            return await value

        value = asyncio.run(wait())
    return value


def shape(value, hint):
    """The value as the hint says it, where JSON has no word for it: models, data classes, enums, tuples, sets."""
    import dataclasses
    import enum
    import types
    import typing

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, getattr(types, "UnionType", typing.Union)):
        if any(isinstance(option, type) and isinstance(value, option) for option in inner):
            return value
        for option in inner:
            try:
                shaped = shape(value, option)
            except Exception:
                continue
            if shaped is not value:
                return shaped
        return value
    if isinstance(value, list):
        plain = origin or hint
        if plain is tuple and inner and inner[-1] is not Ellipsis:
            return tuple(shape(item, kind) for item, kind in zip(value, inner)) + tuple(value[len(inner):])
        kind = inner[0] if inner else None
        if plain in (tuple, set, frozenset):
            return plain(shape(item, kind) for item in value)
        return [shape(item, kind) for item in value]
    if isinstance(value, dict) and origin is dict and len(inner) == 2:
        return {key: shape(item, inner[1]) for key, item in value.items()}
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return hint(value)
        if isinstance(value, dict) and hasattr(hint, "model_validate"):
            return hint.model_validate(value)
        if isinstance(value, dict) and dataclasses.is_dataclass(hint):
            hints = typing.get_type_hints(hint)
            return hint(**{key: shape(item, hints.get(key)) for key, item in value.items()})
    return value


def encode(value):
    """Strings as they are, None as Python writes it, the rest as compact JSON where that is possible."""
    import json

    if value is None or isinstance(value, str):
        return str(value).encode("utf-8", "replace")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = str(value)
    return text.encode("utf-8", "replace")


def failure(error):
    import traceback

    kind = type(error).__name__
    try:
        trace = error.__traceback__
        # Frames keep what the tool had in its hands; when memory ran out, that is what has to go.
        traceback.clear_frames(trace)
        while trace and trace.tb_frame.f_code.co_filename != "tool.py":
            trace = trace.tb_next
        lines = traceback.TracebackException(type(error), error, trace).format()
        told = "".join(lines).encode("utf-8", "replace")
    except BaseException:
        told = b""
    try:
        text = str(error).encode("utf-8", "replace")
    except BaseException:
        text = b""
    if isinstance(error, SystemExit):
        text = b"the tool ended its process with sys.exit(" + text + b"); return a result or raise an exception"
    head = {"status": "raised", "type": kind}
    if isinstance(error, ModuleNotFoundError):
        head["module"] = error.name or ""
    return head, text, told


def cut(text, most):
    if len(text) <= most:
        return text
    return text[:most].decode("utf-8", "ignore").encode("utf-8")


def refuse(words):
    """Says in words what the kernel refuses anyway; the sandbox does not depend on it."""
    processes = {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen",
    }
    addresses = {"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
    process, network = words.get("process"), words.get("network")

    def hook(event, arguments):
        if process and event in processes:
            raise PermissionError(process)
        # A pair of Unix sockets, by which an event loop wakes itself, is no network.
        if network and (event in addresses or (event == "socket.__new__" and arguments[1] != 1)):
            raise PermissionError(network)

    return hook


main()
