"""`emtta view`: the pages on a store's runs, in a browser of this machine."""

import webbrowser
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import say

PORT = 8420


def view(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option("--port", help="Where to listen; 0 is any port that is free.")] = PORT,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Show the runs of a store in the browser, each with its page and its recordings, until Ctrl-C.

    Only this machine can see them: the server listens on 127.0.0.1, and only reads.

    Examples:
        emtta view

        emtta view --store s3://my-bucket/emtta --port 0 --no-browser
    """
    from emtta_core.report.serve import ViewServer
    from emtta_core.store import Store

    with ViewServer(Store.open(store), port) as server:
        say(f"the runs of {store} are at {server.url} (Ctrl-C ends)")
        try:
            if browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("ended")
