//! Integration tests: the contract suites of the ports over every adapter, and the whole program through its front door.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod blocks_api;
mod browser;
mod callbacks;
mod called_tools;
mod client;
mod contract_event_log;
mod contract_run_queue;
mod contract_store;
mod conversations;
mod counting_tools;
mod cursors;
mod described;
mod distributed;
mod embedded;
mod examples;
mod fixtures;
mod gate;
mod harness;
mod history_api;
mod http;
mod images;
mod loop_table;
mod mcp;
mod notation;
mod openapi;
mod outside_tools;
mod python_tools;
mod recorded;
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
mod work;
