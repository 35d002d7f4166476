use tokio::io::DuplexStream;

use super::*;
use crate::IDLE_TIMEOUT;

/// A client and a server with a pipe between them; the drivers run until both are dropped.
fn pair(pipe: usize) -> (Connection, Connection, [tokio::task::JoinHandle<()>; 2]) {
    let (one, other): (DuplexStream, DuplexStream) = tokio::io::duplex(pipe);
    let (client, driving) = connect(one, Role::Client, IDLE_TIMEOUT);
    let (server, serving) = connect(other, Role::Server, IDLE_TIMEOUT);
    (client, server, [tokio::spawn(driving), tokio::spawn(serving)])
}

async fn read_all(reader: &mut StreamReader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await {
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn an_echo_of_a_megabyte_on_each_of_many_streams() {
    let (client, mut server, drivers) = pair(1000);
    let serving = tokio::spawn(async move {
        let mut echoes = tokio::task::JoinSet::new();
        while let Some(mut stream) = server.accept().await {
            echoes.spawn(async move {
                while let Some(bytes) = stream.reader.next().await {
                    stream.writer.send(bytes).await.unwrap();
                }
                stream.writer.finish().await.unwrap();
            });
        }
        echoes.join_all().await
    });
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..20_u8 {
        let mut stream = client.open(Headers::default().with("n", &n.to_string())).await.unwrap();
        clients.spawn(async move {
            let sent = Bytes::from(vec![n; 1 << 20]);
            let (writer, reader) = (&mut stream.writer, &mut stream.reader);
            let (_, back) = tokio::join!(
                async {
                    writer.send(sent.clone()).await.unwrap();
                    writer.finish().await.unwrap();
                },
                read_all(reader)
            );
            assert!(back == sent, "stream {n}");
        });
    }
    clients.join_all().await;
    drop(client);
    serving.await.unwrap();
    for driver in drivers {
        driver.await.unwrap();
    }
}

/// What nobody reads is not taken in: memory stays bounded, and the writer waits.
#[tokio::test]
async fn a_reader_that_sleeps_holds_its_writer_back() {
    let (client, mut server, _drivers) = pair(1000);
    let mut stream = client.open(Headers::default()).await.unwrap();
    let mut other = server.accept().await.unwrap();
    let mut sent = 0;
    let block = Bytes::from(vec![1; 16 * 1024]);
    while tokio::time::timeout(Duration::from_millis(200), stream.writer.send(block.clone())).await.is_ok() {
        sent += block.len();
        assert!(sent < 4 << 20, "{sent} bytes went where nobody reads");
    }
    let reading = tokio::spawn(async move { read_all(&mut other.reader).await.len() });
    stream.writer.send(block).await.unwrap();
    stream.writer.finish().await.unwrap();
    assert!(reading.await.unwrap() > sent);
}

#[tokio::test]
async fn dropping_a_stream_resets_it_and_dropping_all_ends_the_connection() {
    let (client, mut server, drivers) = pair(1000);
    let stream = client.open(Headers::default()).await.unwrap();
    let mut other = server.accept().await.unwrap();
    drop(stream);
    assert_eq!(other.reader.next().await, None);
    drop(client);
    assert!(server.accept().await.is_none());
    server.ended().cancelled().await;
    drop((server, other));
    for driver in drivers {
        driver.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_arrives() {
    let (client, mut server, _drivers) = pair(100);
    let mut stream = client.open(Headers::default()).await.unwrap();
    stream.writer.send(Bytes::from(vec![5; 50_000])).await.unwrap();
    stream.writer.finish().await.unwrap();
    drop((stream, client));
    let mut other = server.accept().await.unwrap();
    assert_eq!(read_all(&mut other.reader).await.len(), 50_000);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection() {
    let (io, _peer) = tokio::io::duplex(100);
    let (mut server, driving) = connect(io, Role::Server, Duration::from_secs(60));
    tokio::join!(driving, async { assert!(server.accept().await.is_none()) });
}
