//! What the API asks of jobs.

use futures::FutureExt;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::job::JobSpec;

use super::NodeBackend;
use crate::api::backend::{Answer, JobBackend, LookAtJobs};
use crate::feed::Feed;
use crate::job::{JobError, JobEvent};
use crate::node::MeshNode;

impl NodeBackend {
    fn compute_node(&self) -> Result<MeshNode, JobError> {
        self.inner().map(MeshNode).map_err(|_| JobError::Stopped)
    }
}

impl JobBackend for NodeBackend {
    fn job_submit(&self, spec: JobSpec) -> Answer<'_, JobId, JobError> {
        async move { self.compute_node()?.submit(spec).await }.boxed()
    }

    fn job_cancel(&self, job: JobId, detail: String) -> Answer<'_, (), JobError> {
        async move { self.compute_node()?.cancel_job(job, detail).await }.boxed()
    }

    fn job_retry(&self, job: JobId) -> Answer<'_, (), JobError> {
        async move { self.compute_node()?.retry_job(job).await }.boxed()
    }

    fn job_look(&self, look: LookAtJobs) -> Answer<'_, (), JobError> {
        async move { self.compute_node()?.look_at_jobs(look).await }.boxed()
    }

    fn job_events(&self) -> Answer<'_, Feed<JobEvent>, JobError> {
        async move { self.compute_node()?.watch_jobs().await }.boxed()
    }
}
