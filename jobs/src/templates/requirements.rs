//! The variables that a template requires.
//!
//! Invariant: every rendering reads the names found here, so a lead without one of them gets no
//! mail. Names that only some renderings read are left out; including them would refuse campaigns
//! that work.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};

/// Tests and filters that accept an undefined value.
const FORGIVING: [&str; 4] = ["default", "d", "defined", "undefined"];

/// Adds the variables that `statement` always reads. The source has passed the policy, which bounds
/// its depth.
pub(super) fn collect(statement: &Stmt<'_>, names: &mut BTreeSet<String>) {
    match statement {
        Stmt::Template(template) => template.children.iter().for_each(|child| collect(child, names)),
        Stmt::EmitExpr(emit) => expression(&emit.expr, names),
        Stmt::IfCond(condition) => expression(&condition.expr, names),
        Stmt::ForLoop(repeat) => expression(&repeat.iter, names),
        _ => {}
    }
}

fn expression(expr: &Expr<'_>, names: &mut BTreeSet<String>) {
    match expr {
        Expr::Var(variable) => drop(names.insert(variable.id.to_owned())),
        Expr::UnaryOp(unary) => expression(&unary.expr, names),
        Expr::BinOp(binary) => {
            expression(&binary.left, names);
            // The right side of these operators may not be evaluated.
            if !matches!(binary.op, BinOpKind::ScAnd | BinOpKind::ScOr) {
                expression(&binary.right, names);
            }
        }
        Expr::Compare(compare) => {
            expression(&compare.expr, names);
            if let Some(first) = compare.ops.first() {
                expression(&first.expr, names);
            }
        }
        Expr::IfExpr(choice) => expression(&choice.test_expr, names),
        Expr::GetAttr(get) => expression(&get.expr, names),
        Expr::GetItem(get) => {
            expression(&get.expr, names);
            expression(&get.subscript_expr, names);
        }
        Expr::Slice(slice) => expression(&slice.expr, names),
        Expr::Filter(filter) if !FORGIVING.contains(&filter.name) => {
            filter.expr.iter().for_each(|expr| expression(expr, names));
            arguments(&filter.args, names);
        }
        Expr::Test(test) if !FORGIVING.contains(&test.name) => {
            expression(&test.expr, names);
            arguments(&test.args, names);
        }
        _ => {}
    }
}

fn arguments(arguments: &[CallArg<'_>], names: &mut BTreeSet<String>) {
    for argument in arguments {
        if let CallArg::Pos(value) | CallArg::Kwarg(_, value) = argument {
            expression(value, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::templates::{CompiledTemplate, MailTemplate};

    fn required(text: &str) -> Vec<String> {
        let template = MailTemplate { subject: "x".into(), text: text.into(), html: None };
        let compiled = CompiledTemplate::compile(&template).unwrap_or_else(|error| panic!("{text}: {error}"));
        compiled.required().map(str::to_owned).collect()
    }

    #[test]
    fn only_names_read_on_every_path_are_required() {
        for (text, names) in [
            ("Dear {{ first_name }} of {{ town | upper }}", vec!["first_name", "town"]),
            ("{{ town | default('nowhere') }}", vec![]),
            ("{% if town is defined %}{{ town }}{% endif %}", vec![]),
            ("{% if vip == 'yes' %}{{ discount }}{% else %}{{ price }}{% endif %}", vec!["vip"]),
            ("{{ a and b }}{{ c or d }}", vec!["a", "c"]),
            ("{{ a if b else c }}", vec!["b"]),
            ("{{ lead_data.town }}", vec!["lead_data"]),
            ("nothing", vec![]),
        ] {
            assert_eq!(required(text), names, "{text}");
        }
    }
}
