#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use audit::{EventExt, codes};
use tempfile::TempDir;
use wire::{
    error::{ErrorKind, Kinded},
    events::{SessionEnd, SessionPrint},
};

use super::*;

fn print(index: i64, text: &str) -> OneOf {
    let mut event = codes::SESSION_PRINT.event(SessionPrint { data: text.into(), ..Default::default() });
    event.metadata_mut().unwrap().index = index;
    event
}

async fn indexes(store: &DiskStore, session: SessionId) -> Vec<i64> {
    let mut stream = store.open(session).await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        found.push(event.index());
    }
    found
}

async fn write(upload: &mut Box<dyn Upload>, indexes: std::ops::Range<i64>) {
    for i in indexes {
        upload.write(&print(i, "text")).await.unwrap();
    }
}

fn upload_id(upload: &dyn Upload) -> UploadId {
    upload.status().upload_id.parse().unwrap()
}

#[tokio::test]
async fn a_recording_is_visible_once_it_is_complete() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::in_data_dir(dir.path()).unwrap();
    let session = SessionId::random();
    let mut upload = store.create(session).await.unwrap();
    assert_eq!(upload.status().last_event_index, -1);
    write(&mut upload, 0..10).await;
    assert_eq!(upload.status().last_event_index, -1, "what is in memory is not acknowledged");
    upload.flush().await.unwrap();
    assert_eq!(upload.status().last_event_index, 9);
    let refused = store.open(session).await.err().unwrap();
    assert_eq!(refused.to_string(), format!("a recording for session {session} was not found"));
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let unfinished = store.unfinished().await.unwrap();
    assert!(unfinished.len() == 1 && unfinished[0].busy && unfinished[0].session == session);

    let recording = upload.complete().await.unwrap();
    assert!(recording.url.ends_with(&format!("/log/records/{session}.tar")));
    assert_eq!(recording.upload_event().unwrap().code(), "T2005I");
    assert_eq!(indexes(&store, session).await, (0..10).collect::<Vec<_>>());
    let mut later = store.open(session).await.unwrap().starting_at(7);
    assert_eq!(later.next().await.unwrap().unwrap().index(), 7);
    assert!(store.unfinished().await.unwrap().is_empty());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(store.recording(session)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_upload_goes_on_after_connections_were_lost() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::in_data_dir(dir.path()).unwrap();
    let session = SessionId::random();
    let mut first = store.create(session).await.unwrap();
    let id = upload_id(first.as_ref());
    write(&mut first, 0..5).await;
    first.flush().await.unwrap();
    write(&mut first, 5..7).await; // in memory only
    // The first connection lingers while the second is there already.
    let mut second = store.resume(session, id).await.unwrap();
    assert_eq!(second.status().last_event_index, 4);
    write(&mut second, 5..9).await;
    second.flush().await.unwrap();
    first.flush().await.unwrap();
    drop((first, second));
    let mut third = store.resume(session, id).await.unwrap();
    assert_eq!(third.status().last_event_index, 8);
    write(&mut third, 9..12).await;
    let recording = third.complete().await.unwrap();
    assert_eq!(recording.summary.last_index, 11);
    assert_eq!(indexes(&store, session).await, (0..12).collect::<Vec<_>>());
    let gone = store.resume(session, id).await.err().unwrap();
    assert!(matches!(gone, Error::UploadNotFound { .. }), "{gone}");
}

#[tokio::test]
async fn what_comes_twice_or_late_over_an_old_connection_is_in_the_recording_once_and_in_order() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let session = SessionId::random();
    let mut old = store.create(session).await.unwrap();
    write(&mut old, 0..5).await;
    old.flush().await.unwrap();
    // The sender has not heard of that, and the old connection still has something on its way.
    let mut new = store.resume(session, upload_id(old.as_ref())).await.unwrap();
    write(&mut new, 2..8).await;
    new.flush().await.unwrap();
    write(&mut old, 5..7).await;
    old.flush().await.unwrap();
    write(&mut new, 8..10).await;
    let recording = new.complete().await.unwrap();
    assert_eq!(recording.summary.last_index, 9);
    assert_eq!(indexes(&store, session).await, (0..10).collect::<Vec<_>>());
    // What the straggler does now changes nothing.
    let _ = old.complete().await;
    assert_eq!(indexes(&store, session).await, (0..10).collect::<Vec<_>>());
    // The whole recording a second time, and its beginning once more.
    for end in [10, 4] {
        let mut again = store.create(session).await.unwrap();
        write(&mut again, 0..end).await;
        again.complete().await.unwrap();
        assert_eq!(indexes(&store, session).await, (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_crash_at_any_byte_keeps_what_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::in_data_dir(dir.path()).unwrap();
    let session = SessionId::random();
    let mut upload = store.create(session).await.unwrap();
    let id = upload_id(upload.as_ref());
    let path = store.upload(session, id).join("1.part");
    write(&mut upload, 0..3).await;
    upload.flush().await.unwrap();
    let acknowledged = fs::metadata(&path).unwrap().len();
    write(&mut upload, 3..5).await;
    upload.flush().await.unwrap();
    drop(upload);
    let whole = fs::read(&path).unwrap();
    for cut in usize::try_from(acknowledged).unwrap()..=whole.len() {
        let dir = TempDir::new().unwrap();
        let store = DiskStore::in_data_dir(dir.path()).unwrap();
        let folder = store.upload(session, id);
        make_folders(&folder).unwrap();
        fs::write(folder.join("1.part"), &whole[..cut]).unwrap();
        let mut upload = store.resume(session, id).await.unwrap();
        let last = upload.status().last_event_index;
        assert_eq!(last, if cut == whole.len() { 4 } else { 2 }, "cut at {cut}");
        write(&mut upload, last + 1..8).await;
        upload.complete().await.unwrap();
        assert_eq!(indexes(&store, session).await, (0..8).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_recording_is_replaced_only_by_a_longer_version_of_itself() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::in_data_dir(dir.path()).unwrap();
    let session = SessionId::random();
    let upload = async |events: &[OneOf]| {
        let mut upload = store.create(session).await.unwrap();
        for event in events {
            upload.write(event).await.unwrap();
        }
        upload.complete().await
    };
    let story = [print(0, "a"), print(1, "b"), codes::SESSION_END.event(SessionEnd::default())];
    let mut story = story.to_vec();
    story[2].metadata_mut().unwrap().index = 2;
    upload(&story[..2]).await.unwrap();
    upload(&story[..1]).await.unwrap();
    assert_eq!(indexes(&store, session).await, [0, 1], "a shorter version changes nothing");
    upload(&story).await.unwrap();
    assert_eq!(indexes(&store, session).await, [0, 1, 2]);
    for forged in [vec![print(0, "a"), print(1, "forged"), story[2].clone(), print(3, "c")], vec![print(0, "forged")]] {
        let refused = upload(&forged).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict(_)), "{refused}");
    }
    assert_eq!(indexes(&store, session).await, [0, 1, 2]);
    assert!(store.unfinished().await.unwrap().is_empty());
    assert!(upload(&[]).await.unwrap().upload_event().is_none());
}

#[tokio::test]
async fn a_damaged_recording_says_so_where_the_damage_is() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::in_data_dir(dir.path()).unwrap();
    let session = SessionId::random();
    let mut upload = store.create(session).await.unwrap();
    write(&mut upload, 0..2).await;
    upload.flush().await.unwrap();
    write(&mut upload, 2..4).await;
    upload.complete().await.unwrap();
    let path = store.recording(session);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let mut stream = store.open(session).await.unwrap();
    for index in 0..4 {
        match stream.next().await {
            Ok(Some(event)) => assert_eq!(event.index(), index),
            Err(e) => return assert!(index >= 2 && e.to_string().contains("truncated"), "{index}: {e}"),
            Ok(None) => panic!("ended without an error"),
        }
    }
    let error = stream.next().await.unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    assert!(stream.next().await.unwrap().is_none());
}
