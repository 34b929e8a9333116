"""`emtta view`: the pages on a store's runs, in a browser of this machine."""

import webbrowser
from typing import Annotated

import typer

from flows.cli._options import DEFAULT_STORE, MemoryOption, StoreOption, TimeoutOption, limits
from flows.cli._output import say

PORT = 8420


def view(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option("--port", help="The port to listen on; 0 for any free port.")] = PORT,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Show the runs of a store in the browser, each with its page and recordings, until Ctrl-C.

    Only this machine can see them: the server listens on 127.0.0.1 and is read-only.

    Examples:
        emtta view

        emtta view --store s3://my-bucket/emtta --port 0 --no-browser
    """
    from emtta_core.report.view_server import ViewServer
    from emtta_core.store import Store

    with ViewServer(Store.open(store), port, limits(timeout, memory)) as server:
        say(f"the runs of {store}: {server.url} (Ctrl-C to stop)")
        try:
            if browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")
