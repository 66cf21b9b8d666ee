use std::path::Path;

use super::*;

fn csv(label: &str) -> Csv {
    Csv::new("my.csv", label)
}

fn error(csv: &Csv, text: &str) -> String {
    let message = csv.parse(text.as_bytes()).expect_err(text).to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn columns_are_numbers_or_texts() {
    let text = "\u{feff}id,\"a, b\" ,kind,y\n1, 2.5 ,x,0.5\n2,-1e3,y,7\n\n3,4,x,8\n";
    let table = csv("y").ignore(["id"]).parse(text.as_bytes()).unwrap();
    assert_eq!(table.columns, ["a, b", "kind=x", "kind=y"]);
    assert_eq!(table.split.features(), &Features::Real(vec![2.5, 1., 0., -1000., 0., 1., 4., 1., 0.]));
    assert_eq!(table.split.targets(), &Targets::Real { values: vec![0.5, 7.0, 8.0], shape: [1].into() });
    assert!(table.classes.is_empty());
    // by number, without a header, with another separator
    let table = csv("0").without_header().delimiter(b';').parse(b"b;1\na;2\nb;3\n").unwrap();
    assert_eq!((table.classes, table.columns), (vec!["a".to_string(), "b".into()], vec!["1".to_string()]));
    assert_eq!(table.split.targets(), &Targets::Classes { labels: vec![1, 0, 1], classes: 2 });
    // numbers as classes sort as numbers
    let classes = csv("y").task(Task::Classification).parse(b"x,y\n1,10\n1,2\n1,10\n").unwrap();
    assert_eq!(classes.classes, ["2", "10"]);
    let given = csv("y").classes(["10", "2", "5"]).parse(b"x,y\n1,10\n1,2\n").unwrap();
    assert_eq!(given.split.targets(), &Targets::Classes { labels: vec![0, 1], classes: 3 });
    // labels may mix once they are texts
    let mixed = csv("y").task(Task::Classification).parse(b"x,y\n1,a\n1,2\n").unwrap();
    assert_eq!(mixed.classes, ["2", "a"]);
}

#[test]
fn bad_tables_name_line_and_column() {
    let label = csv("y");
    for (text, want) in [
        ("", "my.csv: is empty"),
        ("x,y\n", "my.csv: has no rows below its header"),
        ("x,y\n1,2\n1,2,3\n", "my.csv, line 3: 3 fields, where the lines above have 2"),
        ("x,y\n1,2\n1\n", "my.csv, line 3: 1 fields, where"),
        (
            "x,y\n1,2\n\n\nthree,4\n",
            "my.csv, line 5, column \"x\": \"three\" is no number, but there is one in line 2",
        ),
        (
            "x,y\nred,2\n7,4\n",
            "my.csv, line 3, column \"x\": \"7\" is a number, but there is a text in line 2",
        ),
        ("x,y\n1,2\n1,two\n", "my.csv, line 3, column \"y\": \"two\" is no number"),
        ("x,y\n1,2\n,3\n", "my.csv, line 3, column \"x\": the field is empty"),
        ("x,y\n1,\n", "line 2, column \"y\": the field is empty"),
        ("x,y\nnan,1\n", "line 2, column \"x\": \"nan\" is not a finite number"),
        ("x,y\n1,-inf\n", "column \"y\": \"-inf\" is not a finite number"),
        ("x,y\n1e99,1\n", "\"1e99\" is not a finite number"),
        ("x,z\n1,2\n", "my.csv: has no column \"y\"; there are x, z"),
        ("y\n1\n", "has no column but the label's"),
        ("x;y\n1;2\n", "has no column \"y\"; there are x;y; is the separator ';'? (delimiter)"),
        ("x,x,y\n1,2,3\n", "line 1, column \"x\": two columns have this name"),
    ] {
        let message = error(&label, text);
        assert!(message.contains(want), "{text:?}: {message:?} lacks {want:?}");
    }
    let bytes = csv("y").parse(b"x,y\n1,2\n\xff,3\n").unwrap_err().to_string();
    assert!(bytes.contains("line 3") && bytes.contains("field 1 is not UTF-8"), "{bytes}");
    assert!(
        error(&csv("y").classes(["a"]), "x,y\n1,a\n1,b\n")
            .contains("line 3, column \"y\": \"b\" is none of the classes: a")
    );
    assert!(
        error(&csv("y").task(Task::Regression), "x,y\n1,a\n")
            .contains("line 2, column \"y\": \"a\" is no number")
    );
    // a column of names would become as many columns as there are rows
    let names: String = (0..1_001).map(|i| format!("n{i},1\n")).collect();
    let message = error(&label, &format!("name,y\n{names}"));
    assert!(message.contains("line 1002, column \"name\": more than 1000 different texts"), "{message}");
}

#[test]
fn what_is_quoted_is_cut_and_what_is_too_long_refused() {
    let long = "abc\n".repeat(5_000);
    for (text, want) in [
        (format!("x,y\n1,2\n\"{long}\",4\n"), ["line 3, column \"x\"", "field of 19999 bytes"]),
        (format!("x,y\n1,\"{long}"), ["line 2, column \"y\"", "field of 19999 bytes"]),
        (format!("\"{long}\",y\n1,2\n"), ["line 1", "name of a column of 19999 bytes"]),
    ] {
        let message = error(&csv("y"), &text);
        for part in want.iter().chain(&["\"abc\\nabc\\n", "is a quote not closed?"]) {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
        assert!(message.len() < 250, "{message}");
    }
    // what is short enough to be read, too
    let long = "z".repeat(900);
    for (csv, text) in [
        (csv("y"), format!("x,y\n1,2\n{long},2\n")),
        (csv("y").classes(["a"]), format!("x,y\n1,{long}\n")),
        (csv("y").task(Task::Regression), format!("x,y\n1,{long}\n")),
        (csv(&long), format!("{long}1,y\n1,2\n")),
        (csv("y"), format!("{long},y\nnan,2\n")),
    ] {
        let message = error(&csv, &text);
        assert!(message.contains(&("z".repeat(40) + "...")) && message.len() < 200, "{message}");
    }
    // a column that is left out may be of long texts
    assert!(csv("y").ignore(["x"]).parse(format!("x,a,y\n{},1,2\n", "z".repeat(2_000)).as_bytes()).is_ok());
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    for delimiter in *b"\n\r\"\x000129.-+\xe9" {
        let message = error(&csv("y").delimiter(delimiter), "x,y\n1,2\n");
        assert!(message.contains("fields cannot be separated by"), "{delimiter}: {message}");
    }
    for name in ["y", "1"] {
        let message = error(&csv("y").ignore(["x", name]), "x,y,z\n1,2,3\n");
        assert!(message.contains(&format!("ignore names \"{name}\", which is the label's")), "{message}");
    }
    let wide = |start: &[u8]| [start, &"x,y".bytes().flat_map(|b| [b, 0]).collect::<Vec<_>>()].concat();
    for text in [wide(&[0xff, 0xfe]), wide(&[0xfe, 0xff]), wide(&[])] {
        let message = csv("y").parse(&text).unwrap_err().to_string();
        assert!(message.contains("my.csv: is UTF-16") && message.contains("save it as UTF-8"), "{message}");
    }
    let message = Csv::new("", "y").read().unwrap_err().to_string();
    assert!(message.contains("path is empty"), "{message}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.csv");
    std::fs::write(&file, "x,y\n1,a\n2,a\n").unwrap();
    let one_class = [Csv::new(&file, "y").dataset(0.5, 1), Csv::new(&file, "y").dataset_with(&file)];
    for message in one_class.map(|refused| refused.unwrap_err().to_string()) {
        assert!(message.contains("one.csv, column \"y\": every row is of the class \"a\""), "{message}");
    }
    std::fs::write(&file, "x,y\n1,a\n2,b\n").unwrap();
    let message = Csv::new(&file, "y").dataset(0.3, 1).unwrap_err().to_string();
    for part in ["one.csv", "test_split = 0.3", "rows: 2", "each keeps a row to train on"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    for part in [0.0, 1.0, f64::NAN] {
        let message = Csv::new(&file, "y").dataset(part, 1).unwrap_err().to_string();
        assert!(message.contains("one.csv") && message.contains("between 0 and 1"), "{message}");
    }
}

#[test]
fn a_quote_that_stays_open_hides_no_rows() {
    for open in ["x,y\n1,a\n2,\"b\n3,c\n", "x,y\n1,a\n2,\"\"\"b\"\"\n3,c\n", "x,y\n1,\"a\nb\"\n2,\"c\"\"\n"] {
        let message = error(&csv("y"), open);
        let line = if open.contains("a\nb") { "line 4" } else { "line 3" };
        assert!(
            message.contains(line) && message.contains("a quote opens here that is not closed"),
            "{message}"
        );
        let columns = ["x".to_string()];
        let message =
            crate::parse_csv_rows(open.as_bytes(), Path::new("my.csv"), &columns).unwrap_err().to_string();
        assert!(message.contains(line) && message.contains("not closed"), "{message}");
    }
    for sound in
        ["\u{feff}\"x\",y\n1,\"a \"\"b\"\"\"\n2,5\" pipe\n3, \"c\r\n", "x,y\r\n1,\"a\nb\"\r\n2,\"\"\r\n"]
    {
        assert!(open_quote(sound.as_bytes(), &Position::new(), b',').is_ok(), "{sound:?}");
    }
}

#[test]
fn columns_that_name_rows_are_remarked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("people.csv");
    let rows: String =
        (0..40).map(|i| format!("{},{},{i},{}\n", letters(i), letters(i % 3), i % 2)).collect();
    std::fs::write(&file, format!("name,town,age,y\n{rows}")).unwrap();
    let data = Csv::new(&file, "y").dataset(0.2, 1).unwrap();
    let [remark] = &data.remarks[..] else { panic!("{:?}", data.remarks) };
    assert!(remark.contains("column \"name\" holds 40 different texts in 40 rows"), "{remark}");
    assert!(Csv::new(&file, "y").ignore(["name"]).dataset(0.2, 1).unwrap().remarks.is_empty());
}

#[test]
fn texts_that_become_too_many_columns_are_refused() {
    let rows: String =
        (0..140_000).map(|i| format!("{},{},1\n", letters(i % 1_000), letters(i % 999))).collect();
    let message = error(&csv("y"), &format!("city,street,y\n{rows}"));
    for part in ["\"city\" has 1000, \"street\" has 999", "1999 columns", "140000 rows", "ignore"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// Numbers as texts that are none.
fn letters(n: usize) -> String {
    n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
}

#[test]
fn files_are_dealt_out_or_tested_on_others() {
    let dir = tempfile::tempdir().unwrap();
    let (train, test) = (dir.path().join("iris.csv"), dir.path().join("iris-test.csv"));
    let rows: String =
        (0..50).map(|i| format!("{i},{},{}\n", ["r", "g"][i % 2], ["a", "b"][i / 25])).collect();
    std::fs::write(&train, format!("x,c,y\n{rows}")).unwrap();
    let data = Csv::new(&train, "y").dataset(0.2, 1).unwrap();
    assert_eq!((data.name.as_str(), data.train.len(), data.test.len()), ("iris", 40, 10));
    let Targets::Classes { labels, .. } = data.test.targets() else { panic!("classes expected") };
    assert_eq!(labels.iter().sum::<u32>(), 5, "half of each class");

    // only one of two texts and classes
    std::fs::write(&test, "x,c,y\n3,r,b\n").unwrap();
    let data = Csv::new(&train, "y").dataset_with(&test).unwrap();
    assert_eq!(data.test.features(), &Features::Real(vec![3.0, 0.0, 1.0]));
    assert_eq!(data.test.targets(), &Targets::Classes { labels: vec![1], classes: 2 });
    for (text, want) in [
        ("x,c,y\n3,blue,b\n", "line 2, column \"c\": \"blue\" is none of the texts to choose from: g, r"),
        ("x,c,y\n3,r,c\n", "line 2, column \"y\": \"c\" is none of the classes: a, b"),
        ("x,d,y\n3,r,b\n", "has other columns than"),
        ("x,c,y\n3,4,b\n", "has other columns than"),
    ] {
        std::fs::write(&test, text).unwrap();
        let message = Csv::new(&train, "y").dataset_with(&test).unwrap_err().to_string();
        assert!(message.contains(want) && message.contains("iris-test.csv"), "{message}");
    }
    assert!(matches!(Csv::new(dir.path(), "y").read(), Err(DataError::NotAFile { .. })));
    assert!(matches!(Csv::new(dir.path().join("no"), "y").read(), Err(DataError::Io { .. })));
}
