//! Lists and walks.

use omnimesh_protocol::Step;
use omnimesh_protocol::registry::{
    Action, Direction, EntryKind, FieldName, Fields, Filter, ListQuery, Relation, SCAN_MAX, SearchQuery,
    State, Value, WalkQuery,
};

use crate::history::{Author, apply_all, fields, key, link, value};

fn put(name: &str, field: i64) -> Action {
    Action::Put { key: key(name), ttl: None, fields: fields([("x", field)]) }
}

fn of(names: &[&str]) -> State {
    let mut author = Author::new(1);
    let mut state = State::new();
    let written: Vec<_> = names.iter().zip(0..).map(|(name, n)| author.blind(1, put(name, n % 2))).collect();
    apply_all(&mut state, &written);
    state
}

fn all_pages(state: &State, query: &ListQuery) -> Vec<Vec<String>> {
    let mut query = query.clone();
    let mut pages = Vec::new();
    loop {
        let page = state.list(&query, Step(1)).value;
        pages.push(page.entries.iter().map(|entry| entry.key.to_string()).collect());
        match page.next {
            Some(next) => query.after = Some(next),
            None => return pages,
        }
    }
}

#[test]
fn lists_go_by_kind_prefix_and_field() {
    let names = [
        "agent/a",
        "agent/ab",
        "agent/b",
        "model/ab",
        "model/b",
        "my-kind/a",
        "tool/ab",
        "tool/abc",
        "tool/b",
    ];
    let state = of(&names);
    let list = |kind: Option<&str>, prefix: &str, filters: &[Filter], limit| {
        let query = ListQuery {
            kind: kind.map(|kind| EntryKind::new(kind).unwrap()),
            prefix: prefix.to_owned(),
            filters: filters.to_vec(),
            after: None,
            limit,
        };
        all_pages(&state, &query)
    };
    assert_eq!(list(None, "", &[], 100), [names]);
    assert_eq!(list(Some("model"), "", &[], 100), [["model/ab", "model/b"]]);
    assert_eq!(list(Some("tool"), "ab", &[], 100), [["tool/ab", "tool/abc"]]);
    assert_eq!(list(Some("tool"), "abc", &[], 100), [["tool/abc"]]);
    assert_eq!(list(None, "ab", &[], 100), [["agent/ab", "model/ab", "tool/ab", "tool/abc"]]);
    assert_eq!(list(Some("tool"), "z", &[], 100).concat(), Vec::<String>::new());
    assert_eq!(list(Some("workflow"), "", &[], 100).concat(), Vec::<String>::new());
    let x = FieldName::new("x").unwrap();
    let one = Filter::Equals(x.clone(), value(1));
    assert_eq!(
        list(None, "", std::slice::from_ref(&one), 100),
        [["agent/ab", "model/ab", "my-kind/a", "tool/abc"]]
    );
    assert_eq!(list(None, "", &[Filter::Equals(x.clone(), value(1.0))], 100).concat(), Vec::<String>::new());
    assert_eq!(
        list(None, "", &[Filter::Exists(FieldName::new("y").unwrap())], 9).concat(),
        Vec::<String>::new()
    );
    // Pages of any length have together what one page has.
    for limit in 0..names.len() + 1 {
        assert_eq!(list(None, "", &[], limit).concat(), names);
        assert_eq!(list(None, "a", &[one.clone(), Filter::Exists(x.clone())], limit).concat().len(), 4);
        assert_eq!(list(Some("tool"), "ab", &[], limit).concat(), ["tool/ab", "tool/abc"]);
    }
    // A page may begin after any key, also one that is gone or of another kind.
    for (after, expected) in [("agent/zz", 2), ("model/aa", 2), ("model/ab", 1), ("tool/a", 0)] {
        let kind = Some(EntryKind::new("model").unwrap());
        let query = ListQuery { kind, after: Some(key(after)), limit: 9, ..ListQuery::default() };
        assert_eq!(all_pages(&state, &query).concat().len(), expected, "{after}");
    }
}

#[test]
fn a_filter_that_matches_nothing_ends_a_page() {
    let names: Vec<_> = (0..=SCAN_MAX).map(|n| format!("tool/{n}")).collect();
    let state = of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let filters = vec![Filter::Exists(FieldName::new("y").unwrap())];
    let pages = all_pages(&state, &ListQuery { filters, limit: 10, ..ListQuery::default() });
    assert_eq!(pages, [Vec::<String>::new(), Vec::new()]);
}

fn linked() -> State {
    let mut author = Author::new(1);
    let mut state = of(&["agent/a", "agent/b", "model/m", "tool/t", "infrastructure/i", "tool/far"]);
    let mut written: Vec<_> = [
        ("agent/a", "uses", "model/m"),
        ("agent/a", "uses", "tool/t"),
        ("agent/a", "uses", "tool/missing"),
        ("tool/missing", "uses", "tool/far"),
        ("agent/b", "runs", "agent/a"),
        ("model/m", "deployed_on", "infrastructure/i"),
        ("infrastructure/i", "runs", "agent/a"),
        ("tool/t", "uses", "tool/t"),
    ]
    .map(|(from, relation, to)| author.blind(2, Action::Link(link(from, relation, to))))
    .into();
    // Expired at step 5.
    let ends = Action::Put { key: key("tool/t"), ttl: Some(2), fields: Fields::new() };
    written.push(author.blind(3, ends));
    apply_all(&mut state, &written);
    state
}

fn walk(
    state: &State,
    from: &str,
    relations: &[&str],
    direction: Direction,
    depth_max: usize,
) -> Vec<String> {
    let relations = relations.iter().map(|relation| Relation::new(relation).unwrap()).collect();
    let query = WalkQuery { from: key(from), relations, direction, depth_max, limit: 100 };
    let walked = state.walk(&query, Step(4)).value;
    assert!(!walked.is_cut_short);
    walked.reached.iter().map(|reached| format!("{} {}", reached.depth, reached.entry.key)).collect()
}

#[test]
fn walks_follow_links_and_end() {
    let state = linked();
    state.check_invariants();
    assert_eq!(
        walk(&state, "agent/a", &[], Direction::Out, 9),
        ["1 model/m", "1 tool/t", "2 infrastructure/i"]
    );
    assert_eq!(walk(&state, "agent/a", &[], Direction::Out, 1), ["1 model/m", "1 tool/t"]);
    assert_eq!(walk(&state, "agent/a", &[], Direction::Out, 0), Vec::<String>::new());
    assert_eq!(
        walk(&state, "agent/a", &[], Direction::In, 9),
        ["1 agent/b", "1 infrastructure/i", "2 model/m"]
    );
    assert_eq!(walk(&state, "agent/b", &["runs"], Direction::Out, 9), ["1 agent/a"]);
    assert_eq!(
        walk(&state, "infrastructure/i", &["runs", "uses"], Direction::Both, 9),
        ["1 agent/a", "2 model/m", "2 tool/t", "2 agent/b"]
    );
    assert_eq!(walk(&state, "tool/t", &[], Direction::Out, 9), Vec::<String>::new());
    assert_eq!(walk(&state, "tool/missing", &[], Direction::Out, 9), Vec::<String>::new());
}

#[test]
fn walks_skip_what_has_expired_and_say_when_they_were_cut_short() {
    let state = linked();
    let query = |limit| WalkQuery {
        from: key("agent/a"),
        relations: vec![],
        direction: Direction::Out,
        depth_max: 9,
        limit,
    };
    let late = state.walk(&query(100), Step(5));
    let reached: Vec<_> = late.value.reached.iter().map(|reached| reached.via.to_string()).collect();
    assert_eq!(reached, ["agent/a -uses-> model/m", "model/m -deployed_on-> infrastructure/i"]);
    assert_eq!((late.as_of.step, late.as_of.authors), (Step(5), 1));
    let short = state.walk(&query(1), Step(5)).value;
    assert_eq!((short.reached.len(), short.is_cut_short), (1, true));
    let exact = state.walk(&query(2), Step(5)).value;
    assert_eq!((exact.reached.len(), exact.is_cut_short), (2, false));
}

#[test]
fn links_say_whether_there_is_something_at_the_other_end() {
    let state = linked();
    let of = |direction, relations: &[Relation], now| -> Vec<String> {
        let views = state.links(&key("agent/a"), direction, relations, Step(now)).value;
        views.iter().map(|view| format!("{} {}", view.link, view.is_whole)).collect()
    };
    assert_eq!(
        of(Direction::Both, &[], 5),
        [
            "agent/a -uses-> model/m true",
            "agent/a -uses-> tool/missing false",
            "agent/a -uses-> tool/t false",
            "agent/b -runs-> agent/a true",
            "infrastructure/i -runs-> agent/a true",
        ]
    );
    assert_eq!(of(Direction::In, &[Relation::new("uses").unwrap()], 4).len(), 0);
    assert_eq!(of(Direction::Out, &[], 4)[2], "agent/a -uses-> tool/t true");
}

fn note(author: &mut Author, key_of: &str, fields: Fields) -> crate::history::Written {
    author.blind(1, Action::Put { key: key(key_of), ttl: None, fields })
}

fn found(state: &State, text: &str, kind: Option<&str>, limit: usize) -> (Vec<(u64, String)>, usize) {
    let kind = kind.map(|kind| EntryKind::new(kind).unwrap());
    let answer = state.search(&SearchQuery { text: text.to_owned(), kind, limit }, Step(1));
    assert_eq!(answer.as_of, state.as_of(Step(1)));
    let found = answer.value;
    assert!(!found.is_cut_short);
    (found.hits.iter().map(|hit| (hit.score, hit.entry.key.to_string())).collect(), found.matches)
}

#[test]
fn a_search_finds_all_words_and_ranks() {
    let mut author = Author::new(1);
    let nested = Value::List(vec![
        Value::Text("Größe XL".to_owned()),
        Value::Map([("width".to_owned(), Value::Integer(42))].into_iter().collect()),
        Value::Bytes(b"hidden".to_vec()),
        Value::Bool(true),
    ]);
    let mut state = State::new();
    apply_all(
        &mut state,
        &[
            note(&mut author, "model/llama-7b", fields([("about", "a small llama")])),
            note(&mut author, "model/llamas", fields([("about", "none")])),
            note(&mut author, "dataset/wool", fields([("source", "Llama, llama; LLAMA!")])),
            note(&mut author, "tool/shirt", fields([("sizes", nested)])),
        ],
    );
    let names = |hits: Vec<(u64, String)>| hits.into_iter().map(|(_, key)| key).collect::<Vec<_>>();
    // Four for the name and two for the text; three times two; two for a name that only begins so.
    let (hits, matches) = found(&state, "LLAMA", None, 10);
    assert_eq!(
        hits,
        [(6, "dataset/wool".to_owned()), (6, "model/llama-7b".to_owned()), (2, "model/llamas".to_owned())]
    );
    assert_eq!(
        (matches, found(&state, "llama", None, 1).0.len(), found(&state, "llama", None, 1).1),
        (3, 1, 3)
    );
    assert_eq!(
        names(found(&state, "llama model", None, 10).0),
        ["model/llama-7b", "model/llamas"],
        "all words"
    );
    assert_eq!(names(found(&state, "llama small 7b", Some("model"), 10).0), ["model/llama-7b"]);
    assert_eq!(found(&state, "llama", Some("agent"), 10).1, 0);
    assert_eq!(names(found(&state, "größe", None, 10).0), ["tool/shirt"], "letters of all alphabets");
    for word in ["xl", "width", "42", "true", "siz"] {
        assert_eq!(names(found(&state, word, None, 10).0), ["tool/shirt"], "{word}");
    }
    for nothing in ["hidden", "lama", "", "-- !", "llama absent"] {
        assert_eq!(found(&state, nothing, None, 10), (Vec::new(), 0), "{nothing:?}");
    }
    // Gone or expired is not found.
    apply_all(&mut state, &[author.blind(2, Action::Delete { key: key("dataset/wool") })]);
    let brief = Action::Put { key: key("note/brief"), ttl: Some(3), fields: fields([("about", "llama")]) };
    apply_all(&mut state, &[author.blind(2, brief)]);
    assert_eq!(found(&state, "llama", None, 10).1, 3);
    let later = state.search(&SearchQuery { text: "llama".to_owned(), kind: None, limit: 10 }, Step(9)).value;
    assert_eq!(later.matches, 2);
}
