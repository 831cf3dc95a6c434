//! Connections on which nobody says anything any more. Time passes at once, whenever all wait.

use super::*;

/// A network between agents and a proxy that can forget the connections there are: nothing gets through them any more, and
/// nobody is told.
#[derive(Clone)]
struct Forgetful {
    proxy: TunnelServer,
    forgotten: tokio::sync::watch::Sender<usize>,
}

impl Forgetful {
    fn before(proxy: &TunnelServer) -> Self {
        Self { proxy: proxy.clone(), forgotten: tokio::sync::watch::Sender::new(0) }
    }

    fn forget(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }
}

#[async_trait]
impl ProxyDialer for Forgetful {
    async fn dial(&self) -> io::Result<BoxedStream> {
        let ((near, mut here), (mut there, far)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let (proxy, mut forgotten) = (self.proxy.clone(), self.forgotten.subscribe());
        tokio::spawn(async move { proxy.serve(Box::new(far), PEER.parse().unwrap(), ()).await });
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                _ = forgotten.changed() => std::future::pending().await,
            }
        });
        Ok(Box::new(near))
    }
}

/// A tunnel of an agent, and a stream in it, that the network has forgotten just now.
struct Forgotten {
    authority: Authority,
    proxy: TunnelServer,
    network: Forgetful,
    stream: crate::TunnelStream,
    _agent: Agent,
}

impl Forgotten {
    async fn new(keep_alive: KeepAlive) -> Self {
        let authority = Authority::new(CLUSTER);
        let proxy = server_with(&authority, "proxy.c", &[(CLUSTER, &authority)], keep_alive);
        let network = Forgetful::before(&proxy);
        let _agent = Self::agent(&authority, &network, keep_alive);
        registered(&proxy, NODE, TunnelType::Node).await;
        let mut stream = dial(&proxy).await.unwrap();
        line(&mut stream).await;
        network.forget();
        Self { authority, proxy, network, stream, _agent }
    }

    fn agent(authority: &Authority, network: &Forgetful, keep_alive: KeepAlive) -> Agent {
        let mut config = agent_config(identity(authority, "Node", NODE), authority, &Address::default());
        (config.dialer, config.keep_alive) = (Arc::new(network.clone()), keep_alive);
        start(config)
    }
}

#[tokio::test(start_paused = true)]
async fn both_ends_give_up_a_tunnel_that_the_network_forgot_and_the_agent_makes_another() {
    let keep_alive = KeepAlive { interval: Duration::from_secs(10), count: 3 };
    let Forgotten { proxy, mut stream, _agent, .. } = Forgotten::new(keep_alive).await;
    let since = Instant::now();
    let mut events = proxy.registry().subscribe();
    let (mut new, mut gone) = (None, None);
    while new.is_none() || gone.is_none() {
        match tokio::time::timeout(Duration::from_secs(120), events.recv()).await.unwrap().unwrap() {
            TunnelEvent::Registered(_) => new = Some(since.elapsed()),
            TunnelEvent::Unregistered(_) => gone = Some(since.elapsed()),
            TunnelEvent::Heartbeat(_) => {}
        }
    }
    let (threshold, new, gone) = (keep_alive.threshold(), new.unwrap(), gone.unwrap());
    assert!(new <= threshold + Duration::from_secs(2), "the agent was back after {new:?}");
    assert!(gone <= threshold + 2 * keep_alive.interval, "the proxy noticed after {gone:?}");
    // What ran through it hears of the end, and others run through the new one.
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(line(&mut dial(&proxy).await.unwrap()).await, "198.51.100.9:1234");
}

#[tokio::test(start_paused = true)]
async fn a_dial_does_not_wait_for_a_tunnel_that_hangs_when_another_one_comes_up() {
    // Neither end notices by itself that soon.
    let Forgotten { authority, proxy, network, _agent, .. } = Forgotten::new(KeepAlive::default()).await;
    let since = Instant::now();
    assert_eq!(dial(&proxy).await.unwrap_err(), DialError::Timeout);
    assert!(since.elapsed() <= Duration::from_secs(11), "took {:?}", since.elapsed());

    let since = Instant::now();
    let (dialled, _second) = tokio::join!(dial(&proxy), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Forgotten::agent(&authority, &network, KeepAlive::default())
    });
    assert_eq!(line(&mut dialled.unwrap()).await, "198.51.100.9:1234");
    assert!(since.elapsed() < Duration::from_secs(7), "took {:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_another_tunnel_overtakes_is_closed_at_the_agent_and_its_tunnel_is_not_taken_for_broken() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let address = Address::of(&[&proxy]);
    let fast = node(&authority, &address);
    registered(&proxy, NODE, TunnelType::Node).await;
    // The newest tunnel is asked first. Its agent takes what it is asked for, and is slow to connect it.
    let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
    let slow = move |transport: IncomingTransport| {
        let closed = closed.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(15)).await;
            if let Ok(mut stream) = transport.accept().await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            closed.send(()).unwrap();
        }
    };
    let mut config = agent_config(identity(&authority, "Node", NODE), &authority, &address);
    config.transports = Arc::new(slow);
    let _slow = start(config);
    let mut events = proxy.registry().subscribe();
    while proxy.registry().len() < 2 {
        soon(events.recv()).await.unwrap();
    }
    let since = Instant::now();
    assert_eq!(line(&mut dial(&proxy).await.unwrap()).await, "198.51.100.9:1234");
    assert!((2..4).contains(&since.elapsed().as_secs()), "took {:?}", since.elapsed());
    soon(was_closed.recv()).await.unwrap();

    fast.stop.cancel();
    while proxy.registry().len() > 1 {
        soon(events.recv()).await.unwrap();
    }
    assert!(proxy.registry().is_online(NODE, TunnelType::Node));
    // Nor when it is too slow for the dial.
    assert_eq!(dial(&proxy).await.unwrap_err(), DialError::Timeout);
    assert!(proxy.registry().is_online(NODE, TunnelType::Node));
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_taken_for_offline_until_it_is_heard_again() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let client = logged_in(&proxy, &identity(&authority, "Node", NODE)).await;
    let heartbeat = client.channel_open_extension("teleport-heartbeat", Vec::new()).await.unwrap();
    registered(&proxy, NODE, TunnelType::Node).await;
    let valid = |proxy: &TunnelServer| proxy.registry().is_online(NODE, TunnelType::Node);
    assert!(valid(&proxy));
    tokio::time::advance(Duration::from_secs(14 * 60)).await;
    assert!(valid(&proxy));
    tokio::time::advance(Duration::from_secs(2 * 60)).await;
    assert!(!valid(&proxy));
    let mut events = proxy.registry().subscribe();
    heartbeat.request("ping", false, Vec::new()).await.unwrap();
    assert!(matches!(soon(events.recv()).await, Ok(TunnelEvent::Heartbeat(_))));
    assert!(valid(&proxy));
}
