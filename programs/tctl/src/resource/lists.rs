//! Members of access lists.

use wire::accesslist::{ListAccessListMembersRequest, Member};
use wire::client::turn_page;

use crate::api::{Api, Call};
use crate::error::Result;

/// Members on one page.
const PAGE: i32 = 500;

/// All members of a list.
pub async fn list_members(api: &Api, list: &str) -> Result<Vec<Member>> {
    let mut request =
        ListAccessListMembersRequest { page_size: PAGE, access_list: list.to_owned(), ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = api.access_lists().list_access_list_members(request.clone()).within("listing the members").await?;
        found.extend(page.members);
        if !turn_page(&mut request.page_token, page.next_page_token)? {
            return Ok(found);
        }
    }
}
