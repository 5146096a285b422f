//! What has happened to jobs, the newest of it.

use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::driver::Event;
use omnimesh_protocol::{Step, Time};

/// One thing that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// To which.
    pub job: JobId,
}

/// What has happened to jobs. Bounded: so many events of each job, and so many jobs.
#[derive(Debug, Default)]
pub struct History {}

impl History {
    /// Keeps what a driver has told; the event as it is told to those who watch.
    pub fn record(&mut self, _now: Time, _step: Option<Step>, _event: &Event) -> Option<JobEvent> {
        None
    }
}
