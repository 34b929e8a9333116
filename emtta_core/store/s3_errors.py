"""What a request to an object store can end with, in words that say what to do."""

import errno
import os
from typing import Any

from botocore import exceptions as boto

from emtta_core.errors import StoreError

_MISSING = {"NoSuchKey", "404"}
_TAKEN = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
_UNKNOWN_REQUEST = {"NotImplemented", "501"}
_NO_BUCKET = {"NoSuchBucket"}
_BAD_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
_ELSEWHERE = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}

_PERMISSION = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "remove": "s3:DeleteObject",
}


def refusal(error: Exception, what: str, url: str, bucket: str) -> Exception:
    """Return what to raise for what a request raised.

    Args:
        error: as `s3fs` raised it.
        what: `list`, `read`, `write` or `remove`.
        url: the object, or the store.
        bucket: its bucket.

    Returns:
        A `FileNotFoundError`, `FileExistsError`, `BlockingIOError` (another writer is at it) or `NotImplementedError`
        for a state of one object; a `StoreError` for the rest.
    """
    code = _code(error)
    if code in _MISSING:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if code in _TAKEN:
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url)
    if code in _CONFLICT:
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), url)
    if code in _UNKNOWN_REQUEST:
        return NotImplementedError(str(error))
    return StoreError(f"cannot {what} {url}: {_reason(error, code, what, bucket)}")


def cause(error: Exception) -> BaseException:
    """Return an error as the one of Python's own that says whether it may pass: see `emtta_core.pipeline.faults`."""
    if _is_connection(error):
        return ConnectionError(str(error))
    if _status(error) in {429, 500, 502, 503, 504}:
        return OSError(errno.EBUSY, str(error))
    return error


def _reason(error: Exception, code: str, what: str, bucket: str) -> str:
    """Return why a request failed, and what to do."""
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    text = " ".join(str(error).split())
    if code in _NO_BUCKET:
        return f"there is no bucket {bucket!r} at {server}; make it (aws s3 mb s3://{bucket}), or name another store"
    if code in _BAD_KEY:
        return f"{server} refuses the credentials ({text}); see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code in _FORBIDDEN:
        return f"{server} forbids it ({text}); give the credentials' owner the permission {_PERMISSION[what]}"
    if code in _ELSEWHERE:
        return f"the bucket {bucket!r} is in another region ({text}); set AWS_REGION to its own"
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, boto.ProfileNotFound):
        return f"{text}; see AWS_PROFILE"
    if _is_connection(error):
        return f"{server} does not answer ({text}); see AWS_ENDPOINT_URL, and whether the network is up"
    if isinstance(error, ValueError) and "endpoint" in text.lower():
        return f"{text}; set AWS_ENDPOINT_URL to a URL like https://s3.example.org, or unset it for AWS"
    return f"{type(error).__name__}: {text}"


def _is_connection(error: Exception) -> bool:
    """Return whether the server was not reached, or was lost."""
    lost = (boto.HTTPClientError, boto.ConnectionError, ConnectionError, TimeoutError)
    return isinstance(error, lost)


def _code(error: Exception) -> str:
    """Return the code of the server's answer."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int:
    """Return the HTTP status of the server's answer; 0 without one."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: BaseException) -> dict[str, Any]:
    """Return the server's answer, which `s3fs` keeps as the cause of its own error."""
    found = error if isinstance(error, boto.ClientError) else error.__cause__
    return dict(found.response) if isinstance(found, boto.ClientError) else {}
