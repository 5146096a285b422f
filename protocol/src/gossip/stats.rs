//! What the router counts.

/// Counters since the start. Copies are whole messages on a link; ids are counted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Copies received.
    pub copies_received: u64,
    /// Of these, ones seen before.
    pub duplicates: u64,
    /// Of these, ones of a topic that we are not subscribed to.
    pub unwanted: u64,
    /// Of these, ones given out for validation.
    pub validating: u64,
    /// Messages accepted, ignored and rejected by verdict.
    pub accepted: u64,
    /// See `accepted`.
    pub ignored: u64,
    /// See `accepted`.
    pub rejected: u64,
    /// Verdicts on messages that no longer wait for one.
    pub verdicts_late: u64,
    /// Messages given up because no verdict came.
    pub verdicts_missing: u64,
    /// Own messages published.
    pub published: u64,
    /// Copies of own messages sent.
    pub copies_sent_own: u64,
    /// Copies of accepted messages sent to the mesh.
    pub copies_sent_forwarded: u64,
    /// Copies sent in answer to IWANT.
    pub copies_sent_iwant: u64,
    /// Copies saved because the receiver had said that it has the message (IDONTWANT; in tree mode IHAVE).
    pub copies_saved: u64,
    /// Copies saved because the link is lazy (tree mode).
    pub copies_lazy: u64,
    /// Copies not sent to peers on trial, which were told of them instead.
    pub copies_tried: u64,
    /// Ids told to us in IHAVE.
    pub ihave_received: u64,
    /// Ids we told in IHAVE.
    pub ihave_sent: u64,
    /// Ids asked of us.
    pub iwant_received: u64,
    /// Ids we asked for.
    pub iwant_sent: u64,
    /// GRAFTs received.
    pub graft_received: u64,
    /// GRAFTs sent.
    pub graft_sent: u64,
    /// PRUNEs received.
    pub prune_received: u64,
    /// PRUNEs sent.
    pub prune_sent: u64,
    /// CHOKEs received: trees in which a peer made our link lazy.
    pub choke_received: u64,
    /// CHOKEs sent: trees in which we made a link lazy.
    pub choke_sent: u64,
    /// UNCHOKEs received: trees in which a peer made our link eager.
    pub unchoke_received: u64,
    /// UNCHOKEs sent: trees in which we made a link eager.
    pub unchoke_sent: u64,
    /// Of the ids told in IHAVE, those that a lazy link was told at once (tree mode).
    pub ihave_sent_lazy: u64,
    /// Of the ids asked for, those that no eager link brought in time (tree mode).
    pub iwant_sent_repair: u64,
    /// Links made eager because they brought on request what no eager one had brought in time.
    pub tree_repairs: u64,
    /// Links made eager in the place of one that is gone or has choked us.
    pub tree_replacements: u64,
    /// Links made eager because they knew of a message much earlier than the eager one brought it.
    pub tree_shortcuts: u64,
    /// Ids received in IDONTWANT.
    pub idontwant_received: u64,
    /// Ids sent in IDONTWANT.
    pub idontwant_sent: u64,
    /// Frames that could not be read.
    pub malformed: u64,
    /// Messages refused for their shape (`StrictNoSign`).
    pub refused: u64,
    /// New messages shed because too much waits or is held.
    pub shed_messages: u64,
    /// Ids in IHAVE passed over because the peer had told enough in this heartbeat.
    pub shed_ihave: u64,
    /// CHOKEs and UNCHOKEs passed over because the peer had sent enough in this heartbeat.
    pub shed_choke: u64,
    /// Ids in IWANT not served because the peer had got enough.
    pub shed_iwant: u64,
    /// Ids in IDONTWANT passed over because the peer had sent enough in this heartbeat.
    pub shed_idontwant: u64,
    /// Subscriptions of peers passed over because they had enough.
    pub shed_subscriptions: u64,
    /// Messages promised in IHAVE that did not come.
    pub broken_promises: u64,
    /// GRAFTs that came before the backoff was over.
    pub graft_in_backoff: u64,
    /// Frames dropped because their sender is graylisted.
    pub graylisted: u64,
    /// Inputs about peers that are not connected.
    pub unknown_peer: u64,
    /// Connections refused because there are enough.
    pub peers_refused: u64,
}

/// Adds field by field; the pattern names every field, so that none is forgotten.
macro_rules! add_fields {
    ($($field:ident),* $(,)?) => {
        impl std::ops::AddAssign<&Stats> for Stats {
            fn add_assign(&mut self, other: &Stats) {
                let Stats { $($field),* } = other;
                $(self.$field += $field;)*
            }
        }
    };
}

add_fields!(
    copies_received,
    duplicates,
    unwanted,
    validating,
    accepted,
    ignored,
    rejected,
    verdicts_late,
    verdicts_missing,
    published,
    copies_sent_own,
    copies_sent_forwarded,
    copies_sent_iwant,
    copies_saved,
    copies_lazy,
    copies_tried,
    ihave_received,
    ihave_sent,
    iwant_received,
    iwant_sent,
    graft_received,
    graft_sent,
    prune_received,
    prune_sent,
    choke_received,
    choke_sent,
    unchoke_received,
    unchoke_sent,
    ihave_sent_lazy,
    iwant_sent_repair,
    tree_repairs,
    tree_replacements,
    tree_shortcuts,
    idontwant_received,
    idontwant_sent,
    malformed,
    refused,
    shed_messages,
    shed_ihave,
    shed_choke,
    shed_iwant,
    shed_idontwant,
    shed_subscriptions,
    broken_promises,
    graft_in_backoff,
    graylisted,
    unknown_peer,
    peers_refused,
);
