//! Names and answers, case by case.
