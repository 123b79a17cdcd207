"""Where S3 is, and who asks: endpoint, region and credentials, found as AWS's own tools find them."""

import contextlib
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from typing import Any

from bincount.errors import BadInput, install

#: Where S3 is, unless the environment tells.
AWS = "https://s3.{region}.amazonaws.com"

#: Answers which region a bucket is in, also to those who may not read it.
ASK_REGION = "https://s3.amazonaws.com/{bucket}"

#: Seconds for the answer to that.
ASK_SECONDS = 5.0

#: Variables by which a container or a pod is given its credentials; obstore reads them by itself.
GIVEN_TO_CONTAINERS = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)

#: What a variable that asks for something is set to.
_YES = ("1", "true", "yes", "on")


def settings(bucket: str, anonymous: bool) -> dict[str, Any]:
    """What obstore's S3Store has to know of ``bucket``.

    Endpoint: ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``. Region: where the bucket is; with an endpoint,
    ``AWS_REGION``. Credentials: ``AWS_ACCESS_KEY_ID``, or whatever boto3 finds (profiles, SSO, roles), or a
    container's; where there are none requests are not signed.
    """
    if os.environ.get("AWS_ENDPOINT_URL_S3") == "":  # at which obstore panics, whatever it is told
        raise BadInput("AWS_ENDPOINT_URL_S3 is empty: unset it")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise BadInput(f"AWS_ENDPOINT_URL={endpoint} is no address: it begins with http:// or https://")
    region = _told_region() if endpoint else _region(bucket)
    unsigned = anonymous or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in _YES
    # All is told, as obstore fails at a variable that is set and empty.
    found = {"region": region, "endpoint": endpoint or AWS.format(region=region), "skip_signature": unsigned}
    return found if unsigned else found | _credentials()


def signed_by() -> str | None:
    """Where the credentials come from that requests are signed with, and no secret; None: nobody signs."""
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in _YES or _credentials().get("skip_signature"):
        return None
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "AWS_ACCESS_KEY_ID"
    if importlib.util.find_spec("boto3"):
        import boto3

        session = boto3.Session()
        return f"profile {session.profile_name}, {session.get_credentials().method}"
    return "those of a container"


def _told_region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _region(bucket: str) -> str:
    """The region that S3 names for the bucket; where it does not answer, the one the environment tells."""
    request = urllib.request.Request(ASK_REGION.format(bucket=bucket), method="HEAD")
    headers: Any = {}
    with contextlib.suppress(OSError, http.client.HTTPException):
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as refusal:  # moved or forbidden, but it names the region
            headers = refusal.headers
    return headers.get("x-amz-bucket-region") or _told_region()


def _credentials() -> dict[str, Any]:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}  # obstore reads these, the secret and the session's token
    if importlib.util.find_spec("boto3"):
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider

        try:
            session = boto3.Session()
            if session.get_credentials() is None:
                return {"skip_signature": True}
            return {"credential_provider": Boto3CredentialProvider(session)}
        except BotoCoreError as error:
            raise BadInput(f"AWS credentials: {error}") from None
    if os.environ.get("AWS_PROFILE"):
        profile = os.environ["AWS_PROFILE"]
        raise BadInput(f"AWS_PROFILE={profile} needs boto3: {install('aws')}, or unset it")
    if any(os.environ.get(name) for name in GIVEN_TO_CONTAINERS):
        return {}
    return {"skip_signature": True}
