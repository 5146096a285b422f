//! `start`: one node in the foreground.

use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use omnimesh_node::data_dir::{DataDir, StoredMesh, read_mesh, read_secret};
use omnimesh_node::store::StoreError;
use omnimesh_node::store::log::OpenError;
use omnimesh_node::{MeshNode, NodeOptions, Outset, StartError};
use omnimesh_protocol::config::{MESH_NAME_DEFAULT, MeshConfig, SecretHex};
use omnimesh_protocol::mesh::{Invite, Mesh, MeshSecret, is_loopback};

use crate::cli::{Globals, StartArgs};
use crate::error::{CliError, Code};
use crate::settings::{self, Flags};
use crate::signals::{Stop, stopped};
use crate::{files, logging, output};

/// How long the node may take to say goodbye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
/// Longest invite: many times what one with as many addresses as it may have takes.
const INVITE_BYTES_MAX: u64 = 64 << 10;

pub(super) fn run(globals: &Globals, args: &StartArgs) -> Result<(), CliError> {
    let mut flags = Flags::new(globals);
    flags.list("--listen", "network.listen", &args.listen);
    flags.list("--bootstrap", "network.bootstrap", &args.bootstrap);
    flags.text("--api", "api.listen", args.api.as_deref());
    flags.text("--open", "mesh.open", args.open.as_deref());
    let mut config = settings::load(globals, &flags)?.config;

    let invite = args.invite.as_deref().map(read_invite).transpose()?;
    let wanted = wanted_mesh(&config.mesh, invite)?;
    let dir = DataDir::open(&settings::data_dir(globals)?)?;
    let (identity, is_new) = dir.identity()?;
    if wanted.is_none() && !config.network.bootstrap.is_empty() && read_mesh(dir.path())?.is_none() {
        return Err(no_mesh_to_join());
    }
    let name = config.mesh.name.as_deref();
    let stored = dir.mesh(wanted.as_ref(), name.unwrap_or(MESH_NAME_DEFAULT))?;
    if let Some(name) = name.filter(|name| *name != stored.mesh.name()) {
        return Err(other_mesh(name, &stored.mesh, &dir));
    }
    for address in stored.bootstrap {
        if !config.network.bootstrap.contains(&address) {
            config.network.bootstrap.push(address);
        }
    }
    // An invite is foreign text: its addresses are checked as if they had been configured.
    config.validate().map_err(|invalid| CliError::new(Code::ConfigInvalid, invalid.to_string()))?;

    logging::init(&config.log)?;
    let mesh = stored.mesh.clone();
    let options =
        NodeOptions { config, data_dir: Some(dir.path().to_owned()), identity, mesh: stored.mesh, is_new };
    let system = actix::System::new();
    let stop = system.block_on(serve(options, &mesh, &dir, args.exit_on_stdin_close));
    // To drop it would be to wait, however long it takes, for what blocks a thread: a disk that hangs, a program being compiled.
    // What the node promised is on disk.
    std::mem::forget(system);
    let stop = stop?;
    match stop {
        Stop::Interrupt => Err(CliError::interrupted()),
        Stop::Terminate => Ok(()),
    }
}

/// Runs the node until somebody wants it to stop, and says which way.
async fn serve(
    options: NodeOptions,
    mesh: &Mesh,
    dir: &DataDir,
    exit_on_stdin_close: bool,
) -> Result<Stop, CliError> {
    let stop = wait_for_stop(exit_on_stdin_close);
    tokio::pin!(stop);
    let node = tokio::select! {
        node = MeshNode::start(options) => node.map_err(|error| not_started(&error))?,
        stop = &mut stop => return stop,
    };
    announce(&node, mesh, dir);
    let ready_or_stop = tokio::select! {
        ready = node.wait_ready() => ready.map(|()| None).map_err(|error| CliError::new(Code::Failed, error.to_string()))?,
        stop = &mut stop => Some(stop?),
    };
    let stop = match ready_or_stop {
        Some(stop) => stop,
        None => {
            output::tell("ready");
            stop.await?
        }
    };
    output::tell("stopping");
    tokio::select! {
        () = node.shutdown() => {}
        _ = stopped() => output::tell("stopped at once"),
        () = tokio::time::sleep(SHUTDOWN_MAX) => output::tell("some parts did not stop in time"),
    }
    Ok(stop)
}

/// Why there is no node, and what to do.
fn not_started(error: &StartError) -> CliError {
    let (code, hint) = match error {
        StartError::Log(OpenError::OtherMesh { .. }) => (
            Code::ConfigInvalid,
            "each mesh needs a data directory of its own: name another with --data-dir, or move that file away",
        ),
        StartError::Log(OpenError::Newer { .. }) => {
            (Code::Refused, "start the program that wrote it, or a later one; this one does not touch it")
        }
        StartError::Store(error) => return store_unusable(error),
        StartError::Log(OpenError::Failed { .. }) | StartError::LogStore(_) | StartError::Blobs(_) => {
            (Code::Failed, "look at the disk of the data directory: its room, its rights, its health")
        }
        StartError::DataDir(error) => {
            let hint = error.hint();
            return CliError { code: Code::Failed, message: error.to_string(), hint };
        }
        _ => return CliError::new(Code::Failed, error.to_string()),
    };
    CliError::new(code, error.to_string()).hint(hint)
}

/// Why the node's store cannot be used, and what to do. One whose head is damaged is not seen to be a store at all.
pub(super) fn store_unusable(error: &StoreError) -> CliError {
    let hint = match error {
        StoreError::Damaged { path, .. } | StoreError::Open { path, .. } => format!(
            "see that the owner of the data directory may read and write {path}; if it may, the file is damaged: put it back from a \
             copy, or move it away: the node then starts without it, and peers refuse what it publishes until they have forgotten \
             the numbers that it used before (what it appends is not concerned)"
        ),
        StoreError::Access { .. } => {
            "look at the disk of the data directory: its room, its rights, its health".to_owned()
        }
    };
    CliError::new(Code::Failed, error.to_string()).hint(hint)
}

async fn wait_for_stop(exit_on_stdin_close: bool) -> Result<Stop, CliError> {
    if !exit_on_stdin_close {
        return stopped().await;
    }
    let (closed, is_closed) = tokio::sync::oneshot::channel();
    let watch = move || {
        let mut sink = [0; 64];
        while matches!(io::stdin().read(&mut sink), Ok(n) if n > 0) {}
        let _ = closed.send(());
    };
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(watch)
        .map_err(|error| CliError::new(Code::Failed, format!("cannot start a thread: {error}")))?;
    tokio::select! {
        stop = stopped() => stop,
        _ = is_closed => Ok(Stop::Terminate),
    }
}

/// What the operator needs to know, to standard error: the mesh secret is not among it, since this ends up
/// in logs.
fn announce(node: &MeshNode, mesh: &Mesh, dir: &DataDir) {
    let peer_id = node.peer_id().to_string();
    let addresses: Vec<String> =
        node.listen_addresses().iter().map(|address| with_peer(&address.to_string(), &peer_id)).collect();
    let open = *mesh.secret() == MeshSecret::open(mesh.name());
    // What is printed is to work from any directory.
    let dir = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    let path = dir.display();
    output::tell(&format!("omnimesh {}", env!("CARGO_PKG_VERSION")));
    output::tell(&format!("peer id     {peer_id}"));
    let kind = if open { "open" } else { "closed" };
    output::tell(&format!("mesh        {} (id {}, {kind})", mesh.name(), mesh.id()));
    for address in &addresses {
        output::tell(&format!("listening   {address}"));
    }
    output::tell(&format!("data        {path}"));
    if let Some(api) = node.api_address() {
        output::tell(&format!("api         http://{api}"));
    }
    output::tell(&format!("token file  {}", dir.join(omnimesh_node::data_dir::API_TOKEN_FILE).display()));
    let join = if open {
        let bootstrap = reachable(&addresses).map_or_else(String::new, |a| format!(" --bootstrap {a}"));
        format!("omnimesh start --open {}{bootstrap}", mesh.name())
    } else {
        format!("omnimesh start --invite FILE   (FILE holds what `omnimesh invite --data-dir {path}` prints)")
    };
    output::tell(&format!("join        {join}"));
    let here = "add: --data-dir DIR --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0";
    output::tell(&match addresses.iter().all(|address| is_loopback(address)) {
        false => format!("            on this machine, {here}"),
        true => format!("            on this machine only, as it listens on loopback alone; {here}"),
    });
    output::tell(&format!("peers       {}", expectation(node.outset())));
}

/// Whom a node waits for that has just started, and for how long.
fn expectation(outset: Outset) -> String {
    let Outset { bootstrap, met, searches, alone_after } = outset;
    let those =
        |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let who = match (bootstrap, met) {
        (0, 0) if searches => "none known yet: it looks for them on the local network".to_owned(),
        (0, 0) => "none known yet: it waits for others to join".to_owned(),
        (0, _) => format!("it looks for the {} that it has met", those(met, "peer", "peers")),
        (_, 0) => format!("it dials {}", those(bootstrap, "bootstrap address", "bootstrap addresses")),
        _ => format!(
            "it dials {} and the {} that it has met",
            those(bootstrap, "bootstrap address", "bootstrap addresses"),
            those(met, "peer", "peers")
        ),
    };
    match alone_after {
        Some(time) if time.is_zero() => who,
        Some(time) => format!("{who}, and goes on alone if nobody is there within {} s", time.as_secs_f64()),
        None => format!("{who}, and takes part once one answers"),
    }
}

fn with_peer(address: &str, peer_id: &str) -> String {
    if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{peer_id}") }
}

/// The address that most likely works from elsewhere.
fn reachable(addresses: &[String]) -> Option<&String> {
    addresses.iter().find(|address| !is_loopback(address)).or(addresses.first())
}

/// An invite from a file, from standard input (`-`), or given itself.
fn read_invite(source: &Path) -> Result<Invite, CliError> {
    let given = source.to_string_lossy();
    let remedy = "save there what `omnimesh invite` prints on a node of the mesh, or give - to read it from standard input";
    let text = if given == "-" {
        files::text_from("standard input", io::stdin().lock(), INVITE_BYTES_MAX, remedy)
    } else if given.starts_with("omnimesh1-") && !source.exists() {
        Ok(given.into_owned())
    } else {
        files::text(source, INVITE_BYTES_MAX, remedy)
    };
    let text = text.map_err(|error| {
        // What is no text is a damaged invite.
        let code = if error.code == Code::ConfigInvalid { Code::Usage } else { error.code };
        CliError::new(code, format!("no invite: {}", error.message)).hint(remedy)
    })?;
    Invite::decode(&text).map_err(|error| {
        CliError::new(Code::Usage, error.to_string())
            .hint("`omnimesh invite` prints one on a node of the mesh")
    })
}

/// The mesh that was asked for, if any was.
fn wanted_mesh(config: &MeshConfig, invite: Option<Invite>) -> Result<Option<StoredMesh>, CliError> {
    let secret = match &config.secret_file {
        None => None,
        Some(file) => {
            let text = read_secret(file)?.ok_or_else(|| {
                CliError::new(Code::ConfigInvalid, format!("there is no mesh.secret_file {}", file.display()))
                    .hint("write the secret of the mesh there, 64 hexadecimal digits, with mode 600; or correct mesh.secret_file")
            })?;
            Some(SecretHex::new(text.trim()))
        }
    };
    let configured = config
        .mesh(secret.as_ref())
        .map_err(|problem| CliError::new(Code::ConfigInvalid, problem.to_string()))?;
    let Some(invite) = invite else {
        return Ok(configured.map(|mesh| StoredMesh { mesh, bootstrap: Vec::new() }));
    };
    if let Some(mesh) = configured.filter(|mesh| *mesh != invite.mesh) {
        return Err(CliError::new(
            Code::ConfigInvalid,
            format!(
                "the invite is to mesh {:?}, but the configuration names mesh {:?}",
                invite.mesh.name(),
                mesh.name()
            ),
        )
        .hint("drop --invite, or remove the mesh section from the configuration"));
    }
    Ok(Some(StoredMesh { mesh: invite.mesh, bootstrap: invite.bootstrap }))
}

/// A mesh founded now would have a secret that nobody at those addresses knows.
fn no_mesh_to_join() -> CliError {
    CliError::new(Code::Usage, "there are bootstrap addresses, but it is not said which mesh to join")
        .hint("add --invite FILE (`omnimesh invite` prints it on a node of the mesh), or --open NAME for an open mesh, or set mesh.secret_file")
}

fn other_mesh(name: &str, stored: &Mesh, dir: &DataDir) -> CliError {
    CliError::new(
        Code::ConfigInvalid,
        format!("mesh.name is {name:?}, but the data directory belongs to mesh {:?}", stored.name()),
    )
    .hint(format!(
        "remove mesh.name, use another --data-dir, or delete {} to found a new mesh",
        dir.path().join("mesh.toml").display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn invite(name: &str) -> Invite {
        Invite { mesh: Mesh::open(name).unwrap(), bootstrap: vec!["/x".to_owned()] }
    }

    #[test]
    fn an_invite_is_a_file_or_itself() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("invite");
        fs::write(&file, format!("{}\n", invite("a").encode())).unwrap();
        assert_eq!(read_invite(&file).unwrap(), invite("a"));
        assert_eq!(read_invite(Path::new(&invite("b").encode())).unwrap(), invite("b"));
        fs::write(&file, "hello").unwrap();
        assert_eq!(read_invite(&file).unwrap_err().code, Code::Usage);
        let missing = read_invite(Path::new("/nowhere")).unwrap_err();
        assert!(missing.code == Code::NotFound && missing.hint.unwrap().contains("`omnimesh invite`"));
        let endless = read_invite(Path::new("/dev/zero")).unwrap_err();
        assert!(endless.code == Code::Refused && endless.message.contains("65536"), "{endless}");
    }

    #[test]
    fn an_invite_and_the_configuration_must_agree() {
        let open = |name: &str| MeshConfig { open: Some(name.to_owned()), ..MeshConfig::default() };
        let wanted = wanted_mesh(&open("a"), Some(invite("a"))).unwrap().unwrap();
        assert_eq!(wanted.bootstrap, ["/x"]);
        let error = wanted_mesh(&open("b"), Some(invite("a"))).unwrap_err();
        assert!(error.message.contains("mesh \"a\"") && error.message.contains("mesh \"b\""), "{error}");
        assert!(wanted_mesh(&MeshConfig::default(), None).unwrap().is_none());
    }

    #[test]
    fn a_secret_file_must_be_secret() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("secret");
        fs::write(&file, format!("{}\n", "ab".repeat(32))).unwrap();
        let config = MeshConfig { secret_file: Some(file.clone()), ..MeshConfig::default() };
        let missing = MeshConfig { secret_file: Some(temp.path().join("none")), ..MeshConfig::default() };
        let missing = wanted_mesh(&missing, None).unwrap_err();
        assert!(missing.code == Code::ConfigInvalid && missing.hint.is_some(), "{missing}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(wanted_mesh(&config, None).unwrap_err().code, Code::Refused);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(wanted_mesh(&config, None).unwrap().unwrap().mesh.name(), "omnimesh");
    }

    #[test]
    fn what_is_waited_for_is_said() {
        let alone = Outset { bootstrap: 0, met: 0, searches: false, alone_after: Some(Duration::ZERO) };
        assert_eq!(expectation(alone), "none known yet: it waits for others to join");
        let restarted = Outset { alone_after: Some(Duration::from_secs(5)), ..alone };
        assert_eq!(
            expectation(restarted),
            "none known yet: it waits for others to join, and goes on alone if nobody is there within 5 s"
        );
        assert!(
            expectation(Outset { met: 1, ..restarted })
                .starts_with("it looks for the 1 peer that it has met, and")
        );
        let new = Outset { bootstrap: 2, met: 0, searches: true, alone_after: None };
        assert_eq!(expectation(new), "it dials 2 bootstrap addresses, and takes part once one answers");
        let both = expectation(Outset { met: 3, ..new });
        assert!(both.starts_with("it dials 2 bootstrap addresses and the 3 peers that it has met"), "{both}");
        assert!(expectation(Outset { bootstrap: 0, ..new }).contains("looks for them on the local network"));
    }

    #[test]
    fn the_address_for_others_is_not_loopback() {
        let addresses = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"].map(str::to_owned);
        assert_eq!(reachable(&addresses), Some(&addresses[1]));
        assert_eq!(reachable(&addresses[..1]), Some(&addresses[0]));
    }
}
