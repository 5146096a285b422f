//! What the API asks of the jobs.

use futures::FutureExt;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::job::JobSpec;

use super::NodeBackend;
use crate::api::backend::{Answer, JobBackend, LookAtJobs};
use crate::feed::Feed;
use crate::job::{JobError, JobEvent};

impl JobBackend for NodeBackend {
    fn job_submit(&self, _spec: JobSpec) -> Answer<'_, JobId, JobError> {
        std::future::ready(Err(JobError::NoStore)).boxed()
    }

    fn job_cancel(&self, _job: JobId, _detail: String) -> Answer<'_, (), JobError> {
        std::future::ready(Err(JobError::NoStore)).boxed()
    }

    fn job_retry(&self, _job: JobId) -> Answer<'_, (), JobError> {
        std::future::ready(Err(JobError::NoStore)).boxed()
    }

    fn job_look(&self, _look: LookAtJobs) -> Answer<'_, (), JobError> {
        std::future::ready(Err(JobError::NoStore)).boxed()
    }

    fn job_events(&self) -> Answer<'_, Feed<JobEvent>, JobError> {
        std::future::ready(Err(JobError::NoStore)).boxed()
    }
}
