"""`ray.job_submission`: Ray's client for jobs, on `zmreg.JobClient`. Not over HTTP: addresses are the cluster's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from typing import Any, Final

import zmreg
from zmreg import JobInfo, JobStatus

_MILLISECONDS: Final = 1_000


class JobType(StrEnum):
    """Ray's words; there are only jobs that were submitted."""

    SUBMISSION = "SUBMISSION"
    DRIVER = "DRIVER"


class JobDetails:
    """What is known of a job, under Ray's names. Times are milliseconds of the epoch, None: not yet."""

    type = JobType.SUBMISSION
    job_id = None
    driver_info = None
    error_type = None
    driver_agent_http_address = None

    def __init__(self, info: JobInfo) -> None:
        self.submission_id = info.job_id
        self.status = info.status
        self.entrypoint = info.entrypoint
        self.message = info.message or None
        self.start_time = _ms(info.started or info.submitted)
        self.end_time = _ms(info.ended)
        self.metadata = dict(info.metadata)
        self.runtime_env = dict(info.runtime_env)
        self.driver_node_id = info.node_id or None
        self.driver_exit_code = info.exit_code

    def __repr__(self) -> str:
        return f"JobDetails(submission_id={self.submission_id!r}, status={self.status!r}, message={self.message!r})"


def _ms(seconds: float) -> int | None:
    return int(seconds * _MILLISECONDS) or None


class JobSubmissionClient:
    """`zmreg.JobClient` with Ray's words. `address` is "auto", or HOST:PORT of a node, and no URL: ValueError. What is
    for HTTP is refused, too: whoever may submit holds the cluster's key."""

    def __init__(self, address: str | None = None, create_cluster_if_needed: bool = False, **http: Any) -> None:
        for name, value in http.items():
            if name not in ("cookies", "metadata", "headers", "verify"):
                raise TypeError(f"JobSubmissionClient() got an unexpected keyword argument {name!r}")
            if value not in (None, True):
                raise ValueError(
                    f"{name}= is for HTTP, over which nothing is submitted; the cluster's key is asked for"
                )
        self._jobs = zmreg.JobClient(address)

    def submit_job(self, *, entrypoint: str, **keywords: Any) -> str:
        """The id of the job. `entrypoint_num_cpus`, `entrypoint_num_gpus`, `entrypoint_memory`,
        `entrypoint_resources` and `entrypoint_label_selector` are taken as it runs; `job_id` is `submission_id`'s old
        name. Raises as `zmreg.JobClient.submit_job`."""
        old = keywords.pop("job_id", None)
        if old is not None:
            keywords.setdefault("submission_id", old)
        plain = {name.removeprefix("entrypoint_"): value for name, value in keywords.items()}
        return self._jobs.submit_job(entrypoint, **{name: value for name, value in plain.items() if value is not None})

    def get_job_info(self, job_id: str) -> JobDetails:
        """How it stands. RuntimeError when there is no such job, here and below."""
        return JobDetails(self._info(job_id))

    def get_job_status(self, job_id: str) -> JobStatus:
        """Of that the status."""
        return self._info(job_id).status

    def _info(self, job_id: str) -> JobInfo:
        try:
            return self._jobs.get_job_info(job_id)
        except ValueError as error:
            raise RuntimeError(str(error)) from None

    def list_jobs(self) -> list[JobDetails]:
        """All that are known."""
        return [JobDetails(info) for info in self._jobs.list_jobs()]

    def stop_job(self, job_id: str) -> bool:
        """Have it ended; whether it was not over."""
        self._info(job_id)
        return self._jobs.stop_job(job_id)

    def delete_job(self, job_id: str) -> bool:
        """Forget one that is over."""
        self._info(job_id)
        return self._jobs.delete_job(job_id)

    def get_job_logs(self, job_id: str) -> str:
        """What it has printed."""
        self._info(job_id)
        return self._jobs.get_job_logs(job_id)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """The same as it comes, until the job is over."""
        self._info(job_id)
        lines: Iterator[str] = self._jobs.tail_job_logs(job_id)
        while (text := await asyncio.to_thread(next, lines, None)) is not None:
            yield text

    def get_version(self) -> str:
        """zmreg's."""
        return zmreg.__version__


__all__ = ["JobDetails", "JobInfo", "JobStatus", "JobSubmissionClient", "JobType"]
