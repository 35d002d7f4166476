use proptest::prelude::*;

use super::*;

const MAX_STREAMS: usize = 8;

fn pair() -> (Session, Session) {
    (Session::new(Role::Client, MAX_STREAMS), Session::new(Role::Server, MAX_STREAMS))
}

fn header(kind: &str) -> Headers {
    Headers::default().with("streamtype", kind)
}

/// Carries what one side has to say to the other, in pieces of at most `piece` bytes.
fn carry(from: &mut Session, to: &mut Session, piece: usize) -> Result<Vec<Event>, SpdyError> {
    let mut events = Vec::new();
    let mut bytes = from.output().split();
    while !bytes.is_empty() {
        let part = bytes.split_to(piece.min(bytes.len()));
        to.input().extend_from_slice(&part);
        while let Some(event) = to.next_event()? {
            events.push(event);
        }
    }
    Ok(events)
}

/// The bytes of a stream, whatever pieces they came in.
fn bytes_of(events: &[Event], wanted: StreamId) -> Vec<u8> {
    let pieces = events.iter().filter_map(|event| match event {
        Event::Data { id, bytes } if *id == wanted => Some(bytes.to_vec()),
        _ => None,
    });
    pieces.flatten().collect()
}

/// A control frame as a hostile peer would write it.
fn raw(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![0x80, 3, (kind >> 8) as u8, kind as u8, flags];
    all.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    all.extend(body);
    all
}

fn feed(session: &mut Session, bytes: &[u8]) -> Result<Vec<Event>, SpdyError> {
    session.input().extend_from_slice(bytes);
    let mut events = Vec::new();
    while let Some(event) = session.next_event()? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn a_stream_lives_from_open_to_both_ends() {
    let (mut client, mut server) = pair();
    let id = client.open(&header("data")).unwrap();
    client.send(id, b"hello");
    client.close(id);
    client.send(id, b"late");
    let events = carry(&mut client, &mut server, 3).unwrap();
    assert_eq!(events[0], Event::Opened { id, headers: header("data") });
    assert_eq!(bytes_of(&events, id), b"hello");
    assert_eq!(events.last(), Some(&Event::Ended { id }));
    server.reply(id);
    server.send(id, b"answer");
    server.close(id);
    assert_eq!(server.open_streams(), 0);
    let events = carry(&mut server, &mut client, 1000).unwrap();
    let bytes = Bytes::from_static(b"answer");
    assert_eq!(events, [Event::Replied { id }, Event::Data { id, bytes }, Event::Ended { id }]);
    assert_eq!(client.open_streams(), 0);
}

#[test]
fn streams_over_the_limit_are_refused() {
    let (mut client, mut server) = pair();
    for _ in 0..MAX_STREAMS + 2 {
        client.open(&header("data")).unwrap();
    }
    assert_eq!(carry(&mut client, &mut server, 100).unwrap().len(), MAX_STREAMS);
    let refused = carry(&mut server, &mut client, 100).unwrap();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|e| matches!(e, Event::Reset { status: ResetStatus::RefusedStream, .. })));
}

#[test]
fn streams_may_be_opened_in_any_order_but_not_twice() {
    let mut compressor = Compressor::new();
    let mut opening = |id: u8| {
        let mut body = vec![0, 0, 0, id, 0, 0, 0, 0, 0, 0];
        body.extend(compressor.compress(&header("data")));
        raw(1, 0, &body)
    };
    let mut server = Session::new(Role::Server, MAX_STREAMS);
    for id in [3, 1, 5] {
        let opened = Event::Opened { id: id.into(), headers: header("data") };
        assert_eq!(feed(&mut server, &opening(id)).unwrap(), [opened]);
    }
    assert_eq!(feed(&mut server, &opening(3)), Err(SpdyError::StreamNumber(3)));
}

#[test]
fn a_peer_that_goes_away_takes_no_more_streams() {
    let (mut client, mut server) = pair();
    let id = client.open(&header("data")).unwrap();
    carry(&mut client, &mut server, 100).unwrap();
    server.go_away();
    assert_eq!(carry(&mut server, &mut client, 100).unwrap(), [Event::GoAway]);
    assert_eq!(client.open(&header("data")), None);
    client.send(id, b"x");
    let bytes = Bytes::from_static(b"x");
    assert_eq!(carry(&mut client, &mut server, 100).unwrap(), [Event::Data { id, bytes }], "what is open goes on");
}

#[test]
fn pings_are_answered_once() {
    let (mut client, mut server) = pair();
    client.ping();
    assert!(carry(&mut client, &mut server, 100).unwrap().is_empty());
    assert!(!server.output().is_empty());
    assert!(carry(&mut server, &mut client, 100).unwrap().is_empty());
    assert!(client.output().is_empty(), "an answer is not answered");
}

/// Kubernetes' implementation never widens a window: a sender that waited for it would wait for ever. And what is said of windows
/// changes nothing, even if it is beyond all bounds.
#[test]
fn no_window_holds_a_sender_back() {
    let (mut client, mut server) = pair();
    let id = client.open(&header("data")).unwrap();
    assert!(feed(&mut client, &raw(4, 0, &[0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1])).unwrap().is_empty());
    assert!(feed(&mut client, &raw(9, 0, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff])).unwrap().is_empty());
    let block = vec![7; 100 * 1024];
    client.send(id, &block);
    assert_eq!(bytes_of(&carry(&mut client, &mut server, 4096).unwrap(), id), block);
}

#[test]
fn consumed_bytes_are_given_back() {
    let (mut client, mut server) = pair();
    let id = client.open(&header("data")).unwrap();
    client.send(id, &[0; 48 * 1024]);
    let events = carry(&mut client, &mut server, 4096).unwrap();
    let length = bytes_of(&events, id).len();
    assert!(server.output().is_empty(), "nothing was consumed yet");
    server.consume(id, length);
    let (all, of_stream) = (
        [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0xc0, 0],
        [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0xc0, 0],
    );
    assert_eq!(server.output().split(), [all, of_stream].concat());
    // A server is told nothing, which it might answer with a reset after its last word.
    let (mut client, mut server) = pair();
    let id = client.open(&header("data")).unwrap();
    carry(&mut client, &mut server, 100).unwrap();
    server.send(id, &[0; 48 * 1024]);
    let events = carry(&mut server, &mut client, 4096).unwrap();
    client.consume(id, bytes_of(&events, id).len());
    assert!(client.output().is_empty());
}

#[test]
fn hostile_frames_end_the_connection() {
    let check = |bytes: &[u8], error: SpdyError| {
        let mut server = Session::new(Role::Server, MAX_STREAMS);
        assert_eq!(feed(&mut server, bytes), Err(error));
    };
    check(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], SpdyError::Version(2));
    check(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], SpdyError::FrameTooLong(0x00ff_ffff));
    check(&[0, 0, 0, 0, 0, 0, 0, 0], SpdyError::Malformed("DATA"));
    check(&raw(1, 0, &[0, 0, 0, 1]), SpdyError::Malformed("SYN_STREAM"));
    check(&raw(3, 0, &[0, 0, 0, 0, 0, 0, 0, 1]), SpdyError::Malformed("RST_STREAM"));
    let mut even = Session::new(Role::Server, MAX_STREAMS);
    even.open(&header("data"));
    let bytes = even.output().split();
    check(&bytes, SpdyError::StreamNumber(2));
}

#[test]
fn data_for_nobody_is_dropped_and_refused() {
    let (mut client, mut server) = pair();
    let events = feed(&mut server, &[0, 0, 0, 9, 1, 0, 0, 2, b'h', b'i']).unwrap();
    assert!(events.is_empty());
    assert!(carry(&mut server, &mut client, 100).unwrap().is_empty());
    let id = client.open(&header("data")).unwrap();
    carry(&mut client, &mut server, 100).unwrap();
    server.reset(id, ResetStatus::Cancel);
    client.send(id, b"on its way");
    assert!(carry(&mut client, &mut server, 100).unwrap().is_empty());
    let events = carry(&mut server, &mut client, 100).unwrap();
    assert_eq!(events, [Event::Reset { id, status: ResetStatus::Cancel }]);
    client.send(id, b"x");
    assert!(client.output().is_empty(), "nobody reads it any more");
}

proptest! {
    #[test]
    fn whatever_the_pieces_the_bytes_are_the_same(
        writes in prop::collection::vec((0_usize..4, prop::collection::vec(any::<u8>(), 0..5000)), 0..20),
        piece in 1_usize..3000,
    ) {
        let (mut client, mut server) = pair();
        let ids: Vec<StreamId> = (0..4).map(|n| client.open(&header(&n.to_string())).unwrap()).collect();
        let mut expected = vec![Vec::new(); 4];
        for (stream, bytes) in &writes {
            client.send(ids[*stream], bytes);
            expected[*stream].extend_from_slice(bytes);
        }
        ids.iter().for_each(|id| client.close(*id));
        let events = carry(&mut client, &mut server, piece).unwrap();
        for (id, expected) in ids.iter().zip(&expected) {
            prop_assert_eq!(&bytes_of(&events, *id), expected);
            let end = Event::Ended { id: *id };
            prop_assert!(events.contains(&end));
        }
    }

    #[test]
    fn rubbish_never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut server = Session::new(Role::Server, MAX_STREAMS);
        for piece in pieces {
            if feed(&mut server, &piece).is_err() {
                break;
            }
        }
    }

    /// Frames that are well formed at first sight, with anything in them.
    #[test]
    fn near_frames_never_panic(
        frames in prop::collection::vec((0_u16..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..30),
    ) {
        let mut server = Session::new(Role::Server, MAX_STREAMS);
        for (kind, flags, body) in frames {
            if feed(&mut server, &raw(kind, flags, &body)).is_err() {
                break;
            }
            prop_assert!(server.open_streams() <= MAX_STREAMS);
        }
    }
}
