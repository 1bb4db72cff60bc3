//! Integration tests: the contract suites of the ports over every adapter, and the whole program through its front door.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod blocks_api;
mod callbacks;
mod called_tools;
mod client;
mod contract_event_log;
mod contract_run_queue;
mod contract_store;
mod conversations;
mod counting_tools;
mod distributed;
mod embedded;
mod gate;
mod harness;
mod images;
mod loop_table;
mod mcp;
mod notation;
mod outside_tools;
mod python_tools;
mod recovery;
mod scripted_model;
mod sdk;
mod services;
mod settings;
mod socket;
mod tidy;
mod tools_api;
mod traces;
mod upgrade;
