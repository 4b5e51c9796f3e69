//! A balancer on loopback that sends each connection to the next of its servers, right or wrong.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// It listens until the test program ends.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    ports: Vec<u16>,
    taken: usize,
    open: Vec<TcpStream>,
}

impl Balancer {
    pub(crate) fn new(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { ports: vec![port], ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client without a server is hung up on.
                let _ = shared.lock().expect("not poisoned").connect(client);
            }
        });
        Self { address, state }
    }

    /// Other servers for connections to come.
    pub(crate) fn aim(&self, ports: &[u16]) {
        self.state.lock().expect("not poisoned").ports = ports.to_vec();
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        for stream in self.state.lock().expect("not poisoned").open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn connect(&mut self, client: TcpStream) -> io::Result<()> {
        self.taken += 1;
        let server = TcpStream::connect(("127.0.0.1", self.ports[self.taken % self.ports.len()]))?;
        self.open.extend([client.try_clone()?, server.try_clone()?]);
        pass(client.try_clone()?, server.try_clone()?);
        pass(server, client);
        Ok(())
    }
}

/// Passes bytes on until one side ends, and then ends the other.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = to.set_nodelay(true);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
