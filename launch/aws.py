"""The one door to AWS: every request of `launch/` is an ``ask``, and what fails is told in one line.

`tests/test_policy.py` reads the calls of ``ask`` out of the source and holds them against the IAM policy:
name service and operation literally.
"""

import importlib.util
from functools import cache
from typing import Any

from bincount.errors import BadInput, BincountError, Denied, install, one_line

#: Seconds for a connection, and for an answer.
CONNECT, READ = 5, 30

#: AWS's words for a job, or whatever else, that it does not know.
UNKNOWN = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")

DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")


class Refused(BincountError):
    """AWS answered with an error. ``code``: AWS's own word for it; ``headers`` of the answer."""

    def __init__(self, told: str, code: str, headers: dict[str, str]):
        super().__init__(told)
        self.code, self.headers = code, headers


def ask(service: str, operation: str, region: str, **request: Any) -> dict[str, Any]:
    """Make one request and give the answer. Raises BadInput for what only people can mend, else Refused."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

    try:
        found: dict[str, Any] = getattr(_client(service, region), operation)(**request)
    except ClientError as error:
        code = str(error.response["Error"].get("Code", ""))
        message = " ".join(str(error.response["Error"].get("Message") or code).split())[:300]
        told = f"AWS {service} {operation}: {message}"
        if code in DENIED:
            raise Denied(f"{told} (launch/policy.json is what is needed)") from None
        raise Refused(f"{told} ({code})", code, error.response["ResponseMetadata"]["HTTPHeaders"]) from None
    except NoCredentialsError:
        raise BadInput(NO_CREDENTIALS) from None
    except ParamValidationError as error:
        raise BadInput(f"AWS {service} {operation}: {one_line(error)}") from None
    except BotoCoreError as error:
        raise BincountError(f"AWS {service} {operation}: {one_line(error)}") from None
    return found


class UnknownAllowed:
    """``with UnknownAllowed():`` goes on after the block where AWS answers that it knows no such thing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        return isinstance(error, Refused) and error.code in UNKNOWN


NO_CREDENTIALS = "there are no AWS credentials: run `aws configure` or `aws sso login`, or set AWS_PROFILE"


def has_credentials() -> bool:
    """Whether boto3 is there and finds credentials, without asking AWS."""
    if not importlib.util.find_spec("boto3"):
        return False
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session().get_credentials() is not None
    except BotoCoreError:
        return False


@cache
def _client(service: str, region: str) -> Any:
    if not importlib.util.find_spec("boto3"):
        raise BadInput(f"boto3 is not installed: {install('aws')}")
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT, read_timeout=READ, retries={"mode": "standard", "max_attempts": 3}
    )
    return boto3.Session().client(service, region_name=region, config=config)
