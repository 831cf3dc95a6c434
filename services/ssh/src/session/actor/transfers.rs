//! What a session does about files that its parties want to copy.

use super::*;
use crate::session::transfer::{By, Copier, Transfer, TransferRequest};

/// Kind of the events about a request, and what is added to it.
const EVENT: &str = "file_transfer_request";

impl<O: Observer> SessionActor<O> {
    /// Takes a request; says why not where it does not.
    ///
    /// Only the owner's are: what has to be approved follows from the owner's roles, and a party with stricter ones would
    /// come by files that way which it may not have alone.
    pub(super) async fn want_transfer(&mut self, by: By, request: TransferRequest) -> Result<(), String> {
        let party = self.parties.iter().find(|party| match &by {
            By::Party(id) => party.id == *id,
            By::User(name) => party.who.local_name == *name,
        });
        let party = party.filter(|party| party.who.local_name == self.owner_name);
        let party = party.ok_or("only the owner of a session, while in it, can ask for a file transfer")?;
        if self.moderation.is_none() {
            return Err("nobody has to watch this session, so nobody can approve a file transfer in it".to_owned());
        }
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
        let Some(who) = self.parties.iter().find(|p| p.id == party).map(|p| p.who.clone()) else {
            return Ok(()); // it has left
        };
        let Some(mut transfer) = self.transfer.take_if(|transfer| transfer.id == id) else {
            return Err(format!("there is no file transfer request {id:?} in this session"));
        };
        let user = &who.participant.user;
        if !approved {
            self.say(&format!("{user} denied file transfer request {id}")).await;
            self.announce(&transfer, "_deny");
            if let Some(copier) = transfer.take_copier() {
                let _ = copier.answer.send(Err(format!("{user} denied the file transfer"))); // it may be gone
            }
            return Ok(());
        }
        if transfer.is_of(&who.local_name) {
            self.transfer = Some(transfer);
            return Err("nobody can approve a file transfer of their own".to_owned());
        }
        self.say(&format!("{user} approved file transfer request {id}")).await;
        transfer.approve(who.participant);
        self.announce(&transfer, if self.has_enough(&transfer) { "_approve" } else { "" });
        self.settle(transfer);
        Ok(())
    }

    /// A user wants to copy on another connection.
    pub(super) fn use_transfer(&mut self, copier: Copier) {
        match self.transfer.take_if(|transfer| transfer.is_of(&copier.user)) {
            Some(mut transfer) => {
                transfer.wait(copier);
                self.settle(transfer);
            }
            None => {
                let reason = "the moderated session has no file transfer request of yours".to_owned();
                let _ = copier.answer.send(Err(reason)); // it may be gone
            }
        }
    }

    /// Lets whoever waits copy, once enough have approved. One request is good for one copy.
    fn settle(&mut self, mut transfer: Transfer) {
        match self.has_enough(&transfer).then(|| transfer.take_copier()).flatten() {
            Some(copier) => drop(copier.answer.send(Ok(transfer.only()))),
            None => self.transfer = Some(transfer),
        }
    }

    /// Without rules about who has to be present, nobody can be enough.
    fn has_enough(&self, transfer: &Transfer) -> bool {
        self.moderation.as_ref().is_some_and(|rules| transfer.is_approved(rules))
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
