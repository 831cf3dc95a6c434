//! Pages of lists whose items are bytes.

use prost::Message as _;
use prost::bytes::Bytes;
use tonic::Status;

use crate::proto::PaginatedResource;

/// What `ListResources` and `ListUnifiedResources` answer. Its items are [`PaginatedResource`] messages as they are
/// on the wire: the server writes them from what it keeps, without a copy of each, and the client reads them while the next
/// page is on its way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourcePage {
    /// The items, each an encoded `PaginatedResource`.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub resources: Vec<Bytes>,
    /// Where the next page begins; empty after the last.
    #[prost(string, tag = "2")]
    pub next_key: String,
    /// How many items there are on all pages, where that was asked for. Only `ListResources` has it.
    #[prost(int32, tag = "3")]
    pub total_count: i32,
}

impl ResourcePage {
    /// Reads the items.
    ///
    /// # Errors
    /// `Internal` for an item that is no such message.
    pub fn items(&self) -> impl Iterator<Item = Result<PaginatedResource, Status>> {
        let read = |item: &Bytes| PaginatedResource::decode(item.clone());
        self.resources.iter().map(move |item| {
            read(item).map_err(|error| Status::internal(format!("an item of the list is not understood: {error}")))
        })
    }
}
