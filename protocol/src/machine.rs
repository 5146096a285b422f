//! The one shape of every state machine here.
//!
//! A machine is a `State` with a single mutator:
//!
//! ```text
//! State::handle(&mut self, now: Time, input: Input, rng: &mut impl Rng, out: &mut Outbox<Output>)
//! ```
//!
//! It owns no clock, socket, thread or randomness. What it wants done it pushes into the [`Outbox`];
//! the caller drains the outbox and carries the outputs out, in order. A timer is an output that holds
//! the moment and a `Timer` value; the caller gives that value back as an input at or after the
//! moment. Timers are never cancelled: one that has become stale is recognised by its token and does
//! nothing.

/// What a machine wants done, in order.
#[derive(Debug)]
pub struct Outbox<O> {
    items: Vec<O>,
}

impl<O> Default for Outbox<O> {
    fn default() -> Self {
        Outbox { items: Vec::new() }
    }
}

impl<O> Outbox<O> {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one output.
    pub fn push(&mut self, output: impl Into<O>) {
        self.items.push(output.into());
    }

    /// Takes every output, oldest first. The room is kept for the next round.
    pub fn drain(&mut self) -> std::vec::Drain<'_, O> {
        self.items.drain(..)
    }

    /// Gives back the room for more than `outputs`.
    pub fn shrink_to(&mut self, outputs: usize) {
        self.items.shrink_to(outputs);
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many outputs wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The outputs that wait, oldest first.
    pub fn as_slice(&self) -> &[O] {
        &self.items
    }
}
