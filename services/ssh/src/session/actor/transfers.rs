//! What a session does about files that its parties want to copy.

use super::*;
use crate::session::transfer::{By, Transfer, TransferRequest, Waiter};

/// Kind of the events about a request, and what is added to it.
const EVENT: &str = "file_transfer_request";

impl<O: Observer> SessionActor<O> {
    /// Takes a request; says why not where it does not.
    pub(super) async fn want_transfer(&mut self, by: By, request: TransferRequest) -> Result<(), String> {
        let party = self.parties.iter().find(|party| match &by {
            By::Party(id) => party.id == *id,
            By::User(name) => party.who.local_name == *name,
        });
        let party = party.ok_or("only somebody who is in the session can ask for a file transfer in it")?;
        if self.transfer.is_some() {
            return Err("a file transfer request already exists for this session".to_owned());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let transfer = Transfer::new(id, &party.who.local_name, party.user(), request, &self.home)?;
        self.say(&transfer.words()).await;
        self.announce(&transfer, "");
        self.transfer = Some(transfer);
        Ok(())
    }

    /// A party approves or denies.
    pub(super) async fn decide_transfer(&mut self, party: u64, id: &str, approved: bool) -> Result<(), String> {
        let Some(who) = self.parties.iter().find(|p| p.id == party).map(|p| p.who.participant.clone()) else {
            return Ok(()); // it has left
        };
        let Some(mut transfer) = self.transfer.take_if(|transfer| transfer.id == id) else {
            return Err(format!("there is no file transfer request {id:?} in this session"));
        };
        if !approved {
            self.say(&format!("{} denied file transfer request {id}", who.user)).await;
            self.announce(&transfer, "_deny");
            if let Some(waiter) = transfer.take_waiter() {
                let _ = waiter.send(Err(format!("{} denied the file transfer", who.user))); // it may be gone
            }
            return Ok(());
        }
        self.say(&format!("{} approved file transfer request {id}", who.user)).await;
        let enough = transfer.approve(who, self.moderation.as_ref());
        self.announce(&transfer, if enough { "_approve" } else { "" });
        match transfer.take_waiter() {
            // One request is good for one copy.
            Some(waiter) if enough => drop(waiter.send(Ok(transfer.only()))),
            Some(waiter) => {
                transfer.wait(waiter);
                self.transfer = Some(transfer);
            }
            None => self.transfer = Some(transfer),
        }
        Ok(())
    }

    /// A user wants to copy on another connection.
    pub(super) fn use_transfer(&mut self, user: &str, waiter: Waiter) {
        match self.transfer.take_if(|transfer| transfer.is_of(user)) {
            Some(transfer) if transfer.approved => drop(waiter.send(Ok(transfer.only()))),
            Some(mut transfer) => {
                transfer.wait(waiter);
                self.transfer = Some(transfer);
            }
            None => {
                let reason = "the moderated session has no file transfer request of yours".to_owned();
                let _ = waiter.send(Err(reason)); // it may be gone
            }
        }
    }

    /// A party has left: what it asked for goes with it.
    pub(super) fn forget_transfer(&mut self, local_name: &str) {
        let is_gone = !self.parties.iter().any(|party| party.who.local_name == local_name);
        self.transfer.take_if(|transfer| is_gone && transfer.is_of(local_name));
    }

    /// Tells a party why its wish was not taken.
    pub(super) fn explain(&self, by: By, taken: Result<(), String>) {
        let Err(reason) = taken else { return };
        if let Some(party) = self.parties.iter().find(|party| By::Party(party.id) == by) {
            let _ = party.notices.try_send(Notice::Message(reason)); // it may be gone, or stuck
        }
    }

    /// Tells every party's program, which may show more than the words at the terminal.
    fn announce(&self, transfer: &Transfer, what: &str) {
        let event = transfer.event(&format!("{EVENT}{what}"), &self.id).to_string();
        for party in &self.parties {
            let _ = party.notices.try_send(Notice::Event(event.clone())); // it may be gone, or stuck
        }
    }
}
