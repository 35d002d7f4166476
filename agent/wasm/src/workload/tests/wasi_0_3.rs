//! Components of WASI 0.3, built of Rust with the crate `wasip3`.

use super::*;

const COMMAND: &str = "tests/guests/p3-command/p3-command.wasm";
const P3_SERVER: &str = "tests/guests/p3-server/p3-server.wasm";

#[tokio::test]
async fn a_command_sees_what_its_container_has_and_ends_as_it_says() {
    let mut setup = Setup::new().await;
    let volume = setup.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    for (number, (orders, code)) in [
        (&["args", "env", "cwd", "dirs"][..], 0),
        (&["say=before", "fail"][..], 1),
        (&["exit=7"][..], 7),
        (&["resolve=localhost"][..], 0),
        (&["resolve=pod"][..], 0),
        (&["resolve=missing.invalid"][..], 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = setup.spec(COMMAND, &format!("app-{number}"), orders);
        spec.env = vec![("A".into(), "b".into())];
        spec.working_dir = Some("/data".into());
        let access = Access::ReadWrite;
        spec.mounts = vec![Mount::new(volume.clone(), "/data", access)];
        let exit = setup.run(&spec).await;
        let log = setup.log(&spec);
        assert_eq!(exit.code, code, "{orders:?} {log:?}");
        let expected: &[&str] = match number {
            0 => &["p3-command args env cwd dirs", "HOSTNAME=pod", "A=b", "/data", "/data"],
            1 => &["before", "fail: as asked"],
            3 => &["127.0.0.1"],
            4 => &[&setup.ip.to_string()],
            _ => continue,
        };
        let lines: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("stdout F ")).collect();
        assert_eq!(lines, expected, "{orders:?}");
    }
}

#[tokio::test]
async fn a_command_reaches_listeners_of_its_pod() {
    let mut setup = Setup::new().await;
    let listener = setup.spec("tests/guests/tcp-echo/tcp-echo.wasm", "listener", &["listen", "7000"]);
    setup.start(&listener).await;
    setup.until_logged(&listener, "listening").await;
    for (name, target, code) in [("local", "127.0.0.1:7000".to_owned(), 0), ("own", format!("{}:7000", setup.ip), 0), {
        ("nobody", "127.0.0.1:7001".to_owned(), 1)
    }] {
        let client = setup.spec(COMMAND, name, &[&format!("connect={target}")]);
        assert_eq!(setup.run(&client).await.code, code, "{target}: {:?}", setup.log(&client));
    }
}

#[tokio::test]
async fn a_command_that_sleeps_is_stopped_in_time() {
    let mut setup = Setup::new().await;
    let spec = setup.spec(COMMAND, "app", &["say=asleep", "sleep=600000"]);
    setup.start(&spec).await;
    setup.until_logged(&spec, "asleep").await;
    setup.stop(&spec, Duration::from_secs(30));
    assert_eq!(setup.exit(&spec).await.code, 143);
}

#[tokio::test]
async fn a_server_answers_streams_and_fails_alone() {
    let mut setup = Setup::new().await;
    let spec = setup.spec(P3_SERVER, "web", &[]);
    setup.start(&spec).await;
    let address = SocketAddr::new(setup.ip, 8080);
    let slow = tokio::spawn(get(address, "/slow?300"));
    for (path, status, body) in [
        ("/", 200, "ok\n"),
        ("/trap", 500, "the component failed to handle the request; its log says why\n"),
        ("/fail", 500, "the component failed to handle the request; its log says why\n"),
    ] {
        assert_eq!(get(address, path).await.unwrap(), (status, body.to_owned()), "{path}");
    }
    let (status, body) = get(address, "/stream?100").await.unwrap();
    assert_eq!((status, body.matches('x').count()), (200, 100 * 4096));
    assert_eq!(slow.await.unwrap().unwrap(), (200, "at last\n".to_owned()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn a_server_may_go_on_after_its_response() {
    let mut setup = Setup::new().await;
    let spec = setup.spec(P3_SERVER, "web", &[]);
    setup.start(&spec).await;
    let begun = std::time::Instant::now();
    assert_eq!(get(SocketAddr::new(setup.ip, 8080), "/after?500").await.unwrap().0, 200);
    assert!(setup.log(&spec).is_empty(), "the response came first, after {:?}", begun.elapsed());
    setup.until_logged(&spec, "done after the response").await;
}
