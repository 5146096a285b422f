use super::*;
use crate::mesh::Mesh;

fn checkpoint() -> Checkpoint {
    let parts = vec![Part::new(CUT, b"cut"), Part::new("registry", &[7; CHUNK_BYTES + 1])];
    Checkpoint { mesh: Mesh::open("test").unwrap().id(), step: Step(100), parts }
}

fn cut(authors: &[u8]) -> Cut {
    let head = |n: u8| Head { seq: Seq(u64::from(n) + 1), digest: Hash::of(&[n]) };
    Cut(authors
        .iter()
        .map(|n| (NodeId::from_bytes([*n; 32]), CutHead { head: head(*n), step: Step(9) }))
        .collect())
}

#[test]
fn bytes_come_back_and_others_do_not() {
    let cut = cut(&[1, 2, 200]);
    let bytes = cut.encode();
    assert!(bytes.len() <= cut.0.len() * CUT_ENTRY_BYTES_MAX);
    assert_eq!(Cut::decode(&bytes, 3), Some(cut));
    assert_eq!(Cut::decode(&bytes, 2), None, "too many authors");
    let identity = |n| Identity::from_seed(&[n; 32]);
    let checkpoint = checkpoint();
    let mut votes: Vec<Vote> =
        (1..4).map(|n| Vote::new(&identity(n), checkpoint.mesh, &checkpoint.id())).collect();
    votes.sort_by_key(|vote| vote.signer);
    let sealed = Sealed { checkpoint: checkpoint.clone(), heads: Part::new(HEADS, b"heads"), votes };
    assert!(sealed.verify());
    assert_eq!(Checkpoint::decode(&checkpoint.encode()), Some(checkpoint));
    let bytes = sealed.encode();
    assert_eq!(Sealed::decode(&bytes), Some(sealed.clone()));
    for at in 0..bytes.len() {
        let mut other = bytes.to_vec();
        other[at] ^= 1;
        let read = Sealed::decode(&Bytes::from(other)).filter(|read| read.heads == sealed.heads);
        assert!(read.is_none_or(|read| !read.verify()), "a flipped bit at {at}");
        assert_eq!(Sealed::decode(&bytes.slice(..at)), None);
    }
    let mut twice = sealed;
    twice.votes.insert(1, twice.votes[0]);
    assert_eq!(Sealed::decode(&twice.encode()), None, "a signer counts once");
}

#[test]
fn the_id_names_the_mesh_the_step_and_every_part() {
    let one = checkpoint();
    let mut others = vec![one.clone(), one.clone(), one.clone(), one.clone()];
    others[0].mesh = Mesh::open("other").unwrap().id();
    others[1].step = Step(101);
    others[2].parts[1].hash = Hash::of(b"other");
    others[3].parts[1].bytes += 1;
    for other in others {
        assert_ne!(other.id(), one.id());
    }
    let identity = Identity::from_seed(&[1; 32]);
    let vote = Vote::new(&identity, one.mesh, &one.id());
    assert!(vote.verify(one.mesh, &one.id()));
    assert!(!vote.verify(Mesh::open("other").unwrap().id(), &one.id()));
}

#[test]
fn chunks_cover_a_part() {
    let part = &checkpoint().parts[1];
    assert_eq!(part.chunks(), 2);
    assert_eq!(
        [part.chunk_bytes(0), part.chunk_bytes(1), part.chunk_bytes(2), part.chunk_bytes(u64::MAX)],
        [Some(CHUNK_BYTES), Some(1), None, None]
    );
    assert_eq!(Part::new("none", b"").chunks(), 0);
}

#[test]
fn the_later_of_two_cuts_counts() {
    let mut one = cut(&[1, 2]);
    let mut other = cut(&[2, 3]);
    let later = Head { seq: Seq(50), digest: Hash::of(b"later") };
    other.0.get_mut(&NodeId::from_bytes([2; 32])).unwrap().head = later;
    one.join(&other);
    assert_eq!(one.head(&NodeId::from_bytes([2; 32])), later);
    assert_eq!((one.0.len(), one.entries()), (3, 2 + 50 + 4));
    assert_eq!(one.head(&NodeId::from_bytes([9; 32])), Head::EMPTY);
}

#[test]
fn the_newest_is_kept_and_beside_it_one_that_it_does_not_cover() {
    let id = |n: u8| Hash::from_bytes([n; 32]);
    let (all, few) = (cut(&[1, 2, 3]), cut(&[1]));
    assert_eq!(kept([]), (None, None));
    assert_eq!(kept([(Step(10), id(1), &few)]), (Some(0), None));
    assert_eq!(
        kept([(Step(10), id(1), &few), (Step(20), id(1), &all), (Step(15), id(1), &few)]),
        (Some(1), Some(2))
    );
    assert_eq!(
        kept([(Step(30), id(1), &few), (Step(10), id(1), &all), (Step(20), id(1), &few)]),
        (Some(0), Some(1))
    );
    assert_eq!(
        kept([(Step(10), id(2), &all), (Step(10), id(1), &few)]),
        (Some(0), Some(1)),
        "of one step, by id"
    );
}
