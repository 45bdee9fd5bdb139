//! What every module promises of its arguments and outputs.

use e2e::terraform::{modules, variables};

#[test]
fn three_required_arguments_at_most() {
    for module in modules().unwrap() {
        let all = variables(&module, "variable").unwrap();
        let required: Vec<&str> = all
            .iter()
            .filter(|variable| variable.argument("default").is_none())
            .map(|variable| variable.name.as_str())
            .collect();
        assert!(required.len() <= 3, "{} asks for {required:?}", module.name);
    }
}

#[test]
fn every_variable_is_described_and_validated() {
    let mut count = 0;
    for module in modules().unwrap() {
        for variable in variables(&module, "variable").unwrap() {
            let place = format!("{}, variable {}", module.name, variable.name);
            let description = variable.argument("description").unwrap_or_default();
            assert!(
                description.len() > 20 && description.ends_with(".\""),
                "{place} is not described in a sentence: {description}"
            );
            let kind = variable.argument("type");
            assert!(kind.is_some(), "{place} has no type");
            // A bool's type leaves nothing to check.
            assert!(
                kind == Some("bool") || variable.is_validated(),
                "{place} is not validated"
            );
            count += 1;
        }
    }
    assert!(count > 20, "only {count} variables were found");
}

#[test]
fn every_output_is_described() {
    for module in modules().unwrap() {
        for output in variables(&module, "output").unwrap() {
            let description = output.argument("description").unwrap_or_default();
            assert!(
                description.len() > 20,
                "{}, output {} is not described",
                module.name,
                output.name
            );
        }
    }
}
