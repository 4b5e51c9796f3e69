//! The postmaster's death as something to wait for among others.

use std::io;

use pgha_guard::postmaster::Postmaster;

/// Completes when it ends. A small thread waits for that; the kernel wakes it at once.
pub(crate) fn of(postmaster: Postmaster) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let death = postmaster.death()?;
    let (died, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("postmaster-death".into()).stack_size(64 << 10).spawn(move || {
        death.wait();
        let _ = died.send(());
    })?;
    Ok(async move {
        let _ = told.await;
    })
}
