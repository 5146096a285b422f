//! What a program that holds a node asks of its jobs.

use actix::Addr;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::job::JobSpec;
use tokio::sync::oneshot;

use super::{JobError, JobEvent, Seen};
use crate::actors::compute::{CancelJob, ComputeActor, Look, Retry, Submit, WatchJobs};
use crate::feed::Feed;
use crate::node::MeshNode;

impl MeshNode {
    /// Has a job done, driven by this node as long as it lives. Answered once the job is in the log of this node, and
    /// of another one if there is one.
    ///
    /// # Errors
    /// If the job makes no sense or asks for too much, or the node takes none.
    pub async fn submit(&self, spec: JobSpec) -> Result<JobId, JobError> {
        let (answer, answered) = oneshot::channel();
        self.compute()?.send(Submit { spec, answer }).await.map_err(|_| JobError::Stopped)?;
        answered.await.unwrap_or(Err(JobError::Stopped))
    }

    /// Has a job end as cancelled. Answered once that is in the log.
    ///
    /// # Errors
    /// If there is no such job, or it has ended.
    pub async fn cancel_job(&self, job: JobId, detail: String) -> Result<(), JobError> {
        let (answer, answered) = oneshot::channel();
        self.compute()?.send(CancelJob { job, detail, answer }).await.map_err(|_| JobError::Stopped)?;
        answered.await.unwrap_or(Err(JobError::Stopped))
    }

    /// Has what failed of a job done again. Answered once that is in the log.
    ///
    /// # Errors
    /// If there is no such job, or it has not failed.
    pub async fn retry_job(&self, job: JobId) -> Result<(), JobError> {
        let (answer, answered) = oneshot::channel();
        self.compute()?.send(Retry { job, answer }).await.map_err(|_| JobError::Stopped)?;
        answered.await.unwrap_or(Err(JobError::Stopped))
    }

    /// Looks at the jobs where they are.
    ///
    /// # Errors
    /// If the node does no jobs, or has stopped.
    pub async fn look_at_jobs<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Seen<'_>) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |seen: &Seen<'_>| drop(answer.send(look(seen))));
        self.compute()?.send(Look(look)).await.map_err(|_| JobError::Stopped)?;
        answered.await.map_err(|_| JobError::Stopped)
    }

    /// What happens to jobs from now on, until the feed is dropped.
    ///
    /// # Errors
    /// If the node does no jobs, or has stopped.
    pub async fn watch_jobs(&self) -> Result<Feed<JobEvent>, JobError> {
        self.compute()?.send(WatchJobs).await.map_err(|_| JobError::Stopped)
    }

    fn compute(&self) -> Result<Addr<ComputeActor>, JobError> {
        self.0
            .with_links(|links| links.compute.clone())
            .map_err(|_| JobError::Stopped)?
            .ok_or(JobError::NoStore)
    }
}
