//! What is asked of jobs, and answered once the driver has it done: a submission when it is in the log here, and on the disk
//! of another node.

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::driver::{self, Refusal};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::CATEGORY;
use omnimesh_protocol::envelope::Channel;
use tokio::sync::oneshot;

use super::ComputeActor;
use crate::actors::log::{Append, LogError};
use crate::job::JobError;

/// How long a submission waits for another node to have the job on disk. Default: guess.
const COPY_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that waits for the driver.
#[derive(Debug)]
pub(super) enum Answer {
    Submitted {
        answer: oneshot::Sender<Result<JobId, JobError>>,
        /// Whether another node has it on disk, or there is none that could.
        is_copied: bool,
        job: Option<JobId>,
    },
    Accepted(oneshot::Sender<Result<(), JobError>>),
}

impl ComputeActor {
    pub(super) fn submit(
        &mut self,
        spec: JobSpec,
        answer: oneshot::Sender<Result<JobId, JobError>>,
        ctx: &mut Context<Self>,
    ) {
        let ticket = self.take_ticket(Answer::Submitted { answer, is_copied: false, job: None });
        self.submitting = Some(ticket);
        self.drive(driver::Input::Submit { spec, ticket }, ctx);
        self.submitting = None;
    }

    pub(super) fn take_ticket(&mut self, answer: Answer) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.answers.insert(ticket, answer);
        ticket
    }

    /// Appends to the log. What is there comes back as a change; only a refusal is told from here.
    pub(super) fn append(&mut self, ticket: Ticket, payload: Bytes, ctx: &mut Context<Self>) {
        let submission = self.submitting;
        let replicas = usize::from(submission.is_some() && self.peers.nodes().next().is_some());
        let category = Channel::new(CATEGORY).expect("a good name");
        let log = self.log.upgrade();
        let append = async move {
            match log {
                None => Err(LogError::Stopped),
                Some(log) if replicas == 0 => Append::to(&log, category, payload, 0).await.map(drop),
                Some(log) => {
                    let copied = Append::to(&log, category, payload, replicas);
                    // It is in this node's log then, or the driver hears nothing of it.
                    let copied = tokio::time::timeout(COPY_TIMEOUT, copied).await;
                    copied.map_or(Ok(()), |appended| appended.map(drop))
                }
            }
        };
        let life = self.life;
        ctx.spawn(append.into_actor(self).map(move |appended, actor, ctx| {
            if actor.life != life {
                return;
            }
            match (appended, submission) {
                (Ok(()), Some(submission)) => actor.on_copied(submission),
                (Ok(()), None) => {}
                (Err(error), submission) => {
                    tracing::warn!(%error, "the log does not take what a job needs");
                    // It may be there all the same, and only its copies are not.
                    submission.into_iter().for_each(|submission| actor.on_copied(submission));
                    actor.drive(driver::Input::AppendFailed { ticket }, ctx);
                }
            }
        }));
    }

    fn on_copied(&mut self, ticket: Ticket) {
        if let Some(Answer::Submitted { is_copied, .. }) = self.answers.get_mut(&ticket) {
            *is_copied = true;
            self.answer_submission(ticket);
        }
    }

    pub(super) fn on_submitted(&mut self, ticket: Ticket, submitted: JobId) {
        if let Some(Answer::Submitted { job, is_copied, .. }) = self.answers.get_mut(&ticket) {
            *job = Some(submitted);
            // Submitted before: there is nothing to wait for.
            *is_copied |= self.submitting == Some(ticket);
            self.answer_submission(ticket);
        }
    }

    fn answer_submission(&mut self, ticket: Ticket) {
        let is_ready = matches!(
            self.answers.get(&ticket),
            Some(Answer::Submitted { is_copied: true, job: Some(_), .. })
        );
        if is_ready
            && let Some(Answer::Submitted { answer, job: Some(job), .. }) = self.answers.remove(&ticket)
        {
            let _ = answer.send(Ok(job));
        }
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, reason: Refusal) {
        match self.answers.remove(&ticket) {
            Some(Answer::Submitted { answer, .. }) => drop(answer.send(Err(reason.into()))),
            Some(Answer::Accepted(answer)) => drop(answer.send(Err(reason.into()))),
            None => {}
        }
    }
}
