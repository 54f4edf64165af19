//! Throughway gets WebRTC calls through: signaling, STUN/TURN and the pages to use and check both, in one process.
//!
//! # Module map
//!
//! ```text
//! main -> cli -> app -> everything below           one process: app starts the parts in order and owns their end
//! cli -> config, credentials, net, turn::probe     commands: to write, check and look at what runs
//! web -> gateway, signaling, turn::status,         HTTP: pages, WebSocket upgrade, /ice, /admin, health, metrics
//!        credentials, net
//! gateway -> signaling, net                        one file a client protocol, each a translation to and from the hub
//! signaling -> credentials                         members, names, rooms, mailboxes: no socket; only sign-ins await
//! turn -> relay::command, policy, credentials      control plane: one STUN request in, at most one answer out
//! relay -> net, policy                             data plane: forwarding tables, media threads and streams
//! net, config                                      sockets, certificates, HTTP as a client, systemd; TOML, environment
//! address, clock, live, metrics, logging, places, rate, volume, wire   importable by all
//! ```
//!
//! `tests/layering.rs` holds it. `turn` and `signaling` never meet: they share [`credentials`], which mints for the one
//! what the other checks, tells it when a session is over, and keeps the journal that both write
//! ([`credentials::journal`]): what the log says of a session when it and its relays are over. `turn` knows the data
//! plane as commands and requests only ([`relay::command`]). Five modules stand beside design.md's: [`wire`], the
//! strict STUN and ChannelData framing that both planes must read the same way, [`rate`], the token buckets of all
//! limits, [`places`], the counts of what may be open at once, [`volume`], what was relayed in the long run, and
//! [`live`], what a reload changes under its readers.
//!
//! # Control plane and data plane
//!
//! As in a router, one decides who may relay what, slowly and strictly, and the other forwards by a table, fast and
//! blindly. They are different threads joined by bounded queues, so that a flood of requests can't stall media.
//!
//! The control plane ([`turn`]) drives webrtc-rs `turn`'s allocation manager and answers with webrtc-rs `stun` messages.
//! The crate's own server loop is not used: four to eight datagrams from any account hang it for good, each stranger's
//! request costs it memory for ever, it has no peer policy, and it leaves most error answers out. What of the crate is
//! used, and how each of its traps is kept shut, stands in `turn/backstop.rs`.
//!
//! The data plane ([`relay`]) is shards: each a table, a plain data structure with `now` as an argument, and a media
//! thread around it that runs no futures. An entry appears only after the control plane said yes and carries its own
//! deadline, always earlier than the crate's. Between which channels and peers the table forwards, an observer may be told
//! ([`relay::pairs`]): up, extended and down, in order and once each, by commands and the clock and never by a packet. A
//! faster path inside the kernel would be one. None is built in, and without one nothing is kept for it.
//!
//! There is a shard for each core, if not configured otherwise. The kernel deals datagrams out to them by who sends where
//! (SO_REUSEPORT), streams are handed to them in turn, and each client's 5-tuple, with all that is allocated on it, stays
//! where it is. Each shard has a control task and an allocation manager of its own; what must hold for all 5-tuples of a
//! client is counted and kept in one place (`turn::Pool`), which no packet goes through. Which shard has which relayed
//! address stands in one directory that is read without waiting (`relay/directory.rs`), and what is for another shard's
//! client goes there through a ring of fixed size (`relay/neighbours.rs`).
//!
//! # Another configuration
//!
//! SIGHUP has the file read again (`app/reload.rs`): all that can fail comes first, then each part is told, or nothing is.
//! Who looks a rule up asks what is in force ([`live`]); who is there already hears of it: connections of gateways by a watch,
//! control tasks by a recheck, which ends and forbids what nobody would be granted any more, shards by commands, so that
//! no packet pays for it.
//!
//! # Life of a packet
//!
//! 1. A media thread takes a batch of datagrams from a listener, each whole, with its source and the local address it
//!    was sent to: together the 5-tuple.
//! 2. The first byte says what it is (RFC 7983). ChannelData and Send indications are data: the table finds the
//!    allocation, the permission and the peer. A live relayed address of ours is joined inside the process (hairpin),
//!    be it this shard's or another's; other peers are reached if the policy says so; else the datagram is dropped and counted.
//! 3. What is relayed counts against the bandwidth of its allocation and of all, and against the volume of the day and the
//!    month; what is over is dropped and counted.
//! 4. A Binding request is answered on the spot. Every other STUN request goes to the control task through a bounded
//!    queue; when that is full it is dropped and counted.
//! 5. The control task checks it in the order of the RFCs, enters what it grants with the crate, and hands the shard
//!    commands: first what changes in the table, then the answer, in one queue, so that no client hears of a permission
//!    before it works.
//! 6. A datagram at a relay socket needs a permission for its source. Bound to a channel, it reaches the client as
//!    ChannelData, else as a Data indication, from the very address and socket that the client uses.
//!    What ICMP says about data that was sent there goes the same way, in its own attribute.
//! 7. Only what may not be fragmented leaves at once. What some hundred others bring, from whichever sockets are ready, is
//!    held back. Then the datagrams of each flow leave as runs, which the kernel cuts apart (UDP GSO), and the runs of each
//!    socket by one system call: data to peers, data to clients, and last the answers, behind the data that came before
//!    their questions. What the kernel won't cut leaves datagram by datagram, from then on on that way.
//! 8. A TCP or TLS connection is told from others by its first bytes (`net::demux`), behind the header of a load balancer
//!    if it comes from one (`net::proxy`), and cut into messages on tokio. From there each goes the same way, some of those
//!    that came together at once, but that requests have a queue of their own: behind the data before them, and waiting when
//!    it is full. What goes to its client waits in an outbox that drops data, oldest first, once it is 200 ms old or too
//!    much, and never answers. When the connection ends, so does its allocation.
//!
//! # Life of a call
//!
//! A page opens a WebSocket (`web` checks Origin and Host), signs in under a name (`gateway` reads the frame,
//! `signaling` claims the name), and gets `iceServers` with a credential of this session's own. Offers, answers and
//! candidates go through the other's mailbox; whoever doesn't read is cut off, whoever writes is never held back. The
//! browsers allocate with those credentials, permit each other's relayed addresses, and meet in the hairpin.
//!
//! A client of the protocol's second version numbers its frames and acknowledges ours. When its connection breaks, its
//! session waits for it: the name, the rooms and the credentials stay, what it is sent waits in its mailbox, and another
//! connection goes on where the last one left off, with nothing lost and nothing twice. If it doesn't come back in time,
//! partners and rooms learn that it is gone, and whoever sent what it has not acknowledged is told.
//!
//! # Life of the process
//!
//! 1. Starting: what can fail, fails before anybody is let in. Listening TCP sockets are bound, or inherited from systemd,
//!    which keeps them over a restart; UDP ports are bound once the process before has let go of them, or the kernel would
//!    deal its clients out to both. The relay is tried, and only then are connections accepted: those that came earlier
//!    have waited in the kernel. systemd is told READY, and twice in each watchdog's time that the media threads turn
//!    and the control tasks answer, unless one of them doesn't.
//! 2. Serving, until SIGTERM or SIGINT. Another one ends the process at once, whatever it does then.
//! 3. Draining, if `shutdown.drain` says so and a relay is left: nobody new is let in, calls go on. Who is signed in stays
//!    so, and may come back if its connection breaks: calls need signaling when networks change, and most clients end theirs
//!    when the other side's connection does.
//! 4. Telling: when no relay is left or time is over, nobody listens any more, and member after member is closed with 1012
//!    and told when to come back. Nobody is told that others have left.
//! 5. Stopping: every part ends within two seconds, and what was relayed is written down.
//!
//! # Known attacks and what stops each
//!
//! | attack | what stops it | test |
//! |---|---|---|
//! | permissions and channels refreshed in the second they expire hang the crate | its refresh paths are never taken | `refreshing_permissions_and_channels_in_the_second_they_expire_leaves_the_control_plane_answering` |
//! | spoofed requests fill memory, or reflect | nonces without state; answers rare per source and short | `strangers_get_so_many_answers_a_second_and_then_silence`, `a_challenge_is_short_and_an_allocate_with_its_nonce_gets_a_relayed_address` |
//! | the same from more sources than can be remembered | buckets of fixed number, keyed; no shared one | `a_flood_of_sources_shuts_out_neither_known_nor_new_ones_and_costs_no_memory` |
//! | the same, on the wire | the same | `floods_from_two_hundred_networks_leave_memory_files_and_allocations_flat`, `no_question_of_a_stranger_gets_an_answer_beyond_the_budget` |
//! | a flood that keeps a client from a new nonce | its old one proves its address | `a_client_whose_nonce_has_aged_gets_a_new_one_however_busy_its_source_is` |
//! | a peer named thousands of times in one request | each counts once, too many are refused first | `a_peer_named_five_thousand_times_costs_as_much_as_one` |
//! | scanning others' hosts through the relay | new peers rare per member, and per source | `a_member_meets_so_many_new_peers_a_second_however_many_allocations_it_has`, `a_source_meets_so_many_new_peers_whatever_names_it_goes_by` |
//! | a nonce replayed from another address | it is bound to address and transport | `another_user_on_the_5_tuple_is_refused_and_a_nonce_from_elsewhere_is_stale` |
//! | another user on the 5-tuple | 441 | the same |
//! | attributes appended behind the integrity | they don't exist for us | `what_stands_behind_the_integrity_does_not_count` |
//! | EVEN-PORT until no port is left | reservations count, expire and give back | `twenty_thousand_even_port_allocations_leave_the_port_pool_and_the_quotas_whole` |
//! | reaching this host or its network | one policy, on by default | `no_method_in_no_encoding_over_no_transport_reaches_what_is_denied` |
//! | the same, dressed as IPv6 | what is embedded is judged too | `every_embedding_of_a_denied_ipv4_address_is_denied` |
//! | forged ICMP errors | only about peers that the client permits, and few | `forged_icmp_errors_reach_no_client_beyond_its_permissions_and_its_share` |
//! | messages in pieces, or none, over TCP and TLS | cut by their own length; idle ones are closed | `messages_survive_one_byte_at_a_time_and_pipelining`, `who_says_nothing_whole_and_has_no_allocation_is_closed_after_a_minute` |
//! | asking and never reading | data dropped, unread answers capped, nobody else waits | `who_reads_too_slowly_loses_data_but_no_answer_and_holds_nobody_back`, `who_asks_and_never_reads_is_cut` |
//! | filling another member's mailbox | the sender is refused, only who takes nothing is closed | `a_member_that_reads_is_not_closed_by_who_sends_faster_than_it_reads` |
//! | reading nothing of what one is sent | its mailbox is bounded, and nobody waits for its socket | `a_stalled_reader_among_a_thousand_costs_the_others_nothing` |
//! | connecting, and going no further | places for those, in all and per source, and a time by which to go on | `a_thousand_half_open_connections_do_not_keep_a_new_member_from_signing_in` |
//! | never acknowledging what one is sent | the mailbox is bounded, and its senders are told | `what_is_not_acknowledged_fills_the_mailbox_and_is_never_given_up`, `notices_fit_into_a_full_mailbox_but_not_without_end` |
//! | acknowledging what was never sent, or sending a frame twice | counted, and refused or ignored | `nobody_acknowledges_what_was_never_sent_or_takes_an_acknowledgement_back`, `a_frame_counts_once_whatever_connection_it_comes_over` |
//! | another user of the machine at the control socket | it is its owner's alone from the moment it has a name | `it_is_its_owners_alone_and_gone_when_it_is_dropped` |
//! | connecting there and saying nothing | so many at once, each for a while | `more_connections_than_there_are_places_wait_and_are_served` |
//! | names that move an operator's cursor | shown without control characters | `the_table_has_totals_rates_and_talkers`, `a_line_has_colours_on_a_terminal_only_and_nothing_of_a_strangers` |
//! | taking up somebody else's session, or ending it | 128 random bits, and wrong ones count as sign-ins | `only_who_knows_the_secret_and_left_off_where_we_know_comes_back`, `guessing_a_secret_counts_as_signing_in_and_knowing_it_never_does`, `a_guess_ends_nobodys_session` |
//! | sessions left behind without number | so many wait, and the one that has waited longest ends | `sessions_that_wait_are_capped_and_the_one_that_waits_longest_ends` |
//! | the same, to end others' | so many of one network, and its own end for more | `a_network_has_so_many_sessions_that_wait_and_its_own_ends_for_more` |
//! | ending many at once | a few at a time, and others in between | `however_many_end_at_once_others_have_their_turn_between` |
//! | coming into rooms and going without end | what is too much isn't told, and that is; rooms cost by their size | `strangers_who_come_and_go_neither_cut_who_reads_nor_keep_from_it_what_others_say`, `what_goes_to_many_counts_for_more` |
//! | having one's own frames come back, for each in a room | once a frame | `a_frame_that_not_all_in_a_room_got_comes_back_once` |
//! | pings and pongs without number, instead of messages | they count as messages | `control_frames_count_as_messages_do` |
//! | announcing a message larger than any that is taken | refused by the length that it declares | `messages_beyond_64_kib_are_refused_by_the_length_they_declare_and_nothing_is_kept_for_them` |
//! | Socket.IO sessions by GET, without number and without a word | each has a place of its source's, and ten seconds to ask on | `a_thousand_sessions_of_one_source_are_as_many_as_its_connections_may_be_and_soon_over`, `who_comes_into_no_namespace_is_let_go_of`, `who_polls_no_more_is_gone_and_its_name_is_free` |
//! | Sitting in Socket.IO's lobby until it is full | who finds it so comes in all the same, and into rooms; that one source can fill it isn't prevented, only told | `rooms_and_the_lobby_have_so_many_places_and_say_when_they_are_full` |
//! | polling no more, or never taking what one is sent | as gone as a silent WebSocket, as slow as one that doesn't read | `who_polls_no_more_is_gone_and_its_name_is_free`, `who_takes_nothing_is_cut_and_holds_nobody_back` |
//! | WebSockets for a session that somebody polls | one is tried at a time, and soon let go of | `a_web_socket_that_is_not_tried_as_it_should_changes_nothing` |
//! | a foreign page with a name that leads here (DNS rebinding), polling without an Origin header | its host is no origin of ours, or it must post and name it | `a_page_that_has_its_own_name_lead_here_hears_nothing_of_others` |
//! | events that clients take for their own library's | they are no events | `what_is_no_packet_is_refused`, `what_makes_no_sense_is_answered_and_ends_the_connection_the_third_time` |
//! | rooms, or members of one, without number | so many for each | `rooms_are_capped_for_each_member_and_members_for_each_room` |
//! | listing who is here | off, and so many names at most | `who_is_told_only_where_members_may_ask_and_not_without_end`, `ids_are_listed_only_where_that_is_on_and_not_without_end` |
//! | having things wait for names without number | so many for each sender and name; names for each source, and in all | `what_waits_is_bounded_for_each_pair_and_nobody_fills_anothers_share`, `what_waits_is_bounded_for_each_source_and_in_all_and_makes_room_when_it_waits_no_more` |
//! | guessing the token that a name is taken over by | each guess counts as a sign-in; digests are compared, and take as long | `guessing_tokens_counts_as_signing_in` |
//! | taking over somebody else's name by a token that all share | it takes over nothing | `a_token_that_all_share_lets_in_and_takes_nothing_over` |
//! | taking a name that was just freed, for the answers its owner waits for | what waits is its sender's by session, token or account | `what_waits_is_its_senders_that_comes_back_and_no_strangers_that_has_its_name` |
//! | messages that wait for a name to fill its mailbox before others' | each sender has its turn, and one that was kicked none | `each_sender_has_its_turn_in_a_mailbox_that_has_not_room_for_all_and_is_told_once`, `nothing_waits_any_more_of_who_was_kicked` |
//! | going on to relay with what a reload takes away: a secret, a password, a peer | what proved each allocation is remembered, and whom it may reach; both are looked at again | `what_was_opened_by_a_user_or_secret_that_is_gone_ends_with_its_reservations`, `a_denied_peer_gets_nothing_more_from_a_living_allocation_and_nothing_of_it_comes_in` |
//! | being revoked, and good again because lives were shortened since | the longest life ever given counts | `a_session_that_is_revoked_is_refused_as_long_as_what_it_got_before_the_life_was_shortened` |
//! | going on to relay after a kick, or coming back with what was handed out | told to the control plane, which ends all it holds; remembered until the last credential has expired. What it got from `/ice` belongs to no session and stays good until it expires (`turn.credential_life`) | `a_kicked_member_is_closed_and_loses_its_relays_over_udp_and_tcp_within_a_second`, `a_relayed_call_outlives_a_dropped_websocket_and_can_be_revoked_all_the_same` |
//! | kicks, or ends of sessions, without number | remembered up to a number, beyond it rather refused; who falls behind looks at all | `more_revoked_sessions_than_can_be_remembered_are_refused_all_the_same`, `who_hears_of_too_many_ends_at_once_ends_what_is_over_and_no_more` |
//! | signing in again for another share | what a session counts for stands in its user names | `quotas_count_a_member_in_all_its_sessions_and_a_session_without_one_alone` |
//! | candidates without number | a session remembers so many, and forgets first what its loudest teller told | `a_session_is_told_of_so_many_addresses_and_the_earliest_is_forgotten`, `who_tells_a_session_of_too_many_addresses_pushes_out_its_own` |
//! | telling oneself of a peer that nobody signaled | counts for others only | `candidates_open_peers_to_whom_they_are_sent_and_to_nobody_else` |
//! | coming back under another name after a ban | the account is refused, wherever it asks | `who_is_banned_comes_back_under_no_other_name_by_no_other_way`, `who_is_banned_takes_nothing_over_with_a_token_of_its_own` |
//! | an account by any name, for another share | where clients choose their names, a web service that says no name means no account | `an_answer_without_a_name_makes_an_account_of_no_name_that_a_client_chose_for_its_connection` |
//! | bans without number | so many names, and accounts | `so_many_accounts_may_be_banned` |
//! | lists without end | a page at a time, 1000 entries at most | `lists_come_a_page_at_a_time_and_miss_nobody` |
//! | guessing the operator's token | few tries a source; 16 characters at least | `a_source_may_be_wrong_about_the_token_so_often` |
//! | guessing the token that lets members in | few tries a source; 16 characters at least | `who_fails_to_sign_in_too_often_waits` |
//! | a token that says how it is to be checked: `none`, or the public key taken for a secret | a key has one algorithm, whatever a token says | `the_algorithm_is_the_keys_and_never_what_a_token_says` |
//! | claims of a wrong type, twice, or written in another way, to pass unread | one way to write each, and what is there must be what it should | `a_token_is_good_in_its_time_and_a_minute_around_it`, `a_token_is_written_in_one_way`, `no_text_is_a_token_that_nobody_signed` |
//! | a token of a megabyte | 8 KiB | `a_huge_token_is_not_even_looked_at` |
//! | signing in as somebody else with a token of one's own | the account's name and no other | `who_has_a_token_signs_in_by_its_subject_and_by_no_other_name` |
//! | another share of everything by another way in | an account counts in all its sessions, and at `/ice` | `an_account_has_one_quota_for_its_session_and_what_it_gets_from_ice` |
//! | wrong passwords and invented sessions, to fill what is kept to tell of them | only what lives has a place, of fixed size; strangers are counted | `it_holds_what_lives_and_no_more_and_tells_of_each_once`, `credentials_that_no_session_here_has_are_counted_and_have_no_place` |
//! | coming and going without end, to fill the log | so many lines, and the rest in sum | `more_endings_than_anybody_reads_are_only_counted`, `of_more_endings_than_a_log_has_lines_for_the_rest_is_told_in_sum` |
//! | a web service that never answers, to hold up everybody | asked beside everything, by so many at once, for so long | `a_stuck_web_service_holds_up_nobody_but_who_asks_for_it`, `a_stuck_service_costs_each_so_much_time_and_only_so_many_wait_for_it`, `one_network_that_has_the_service_asked_without_end_leaves_it_to_others` |
//! | an answer without end, or from elsewhere | 64 KiB, no redirects, certificates checked | `other_statuses_and_broken_answers_are_errors_and_a_redirect_is_one`, `over_tls_only_who_has_a_trusted_certificate_of_the_name_is_asked` |
//! | a foreign page that fetches credentials | the same origins as for WebSockets | `ice_servers_for_applications_that_signal_elsewhere_relay_in_either_mode` |
//! | the same by a name of its own that leads here (DNS rebinding) | without an origin the host must be ours | `a_page_that_has_its_own_name_lead_here_gets_no_ice_servers` |
//! | connections without number | places, in all and per source | `one_source_has_so_many_streams` |
//! | beginning a 64 KiB message on each of them | 4 KiB of one at most before an allocation | `before_it_has_an_allocation_nobody_makes_us_hold_a_long_message` |
//! | a TCP close while allocating | told behind the request, never lost | `garbage_ends_the_stream_and_the_streams_end_ends_its_allocation` |
//! | a call without end, to hold up a restart | relays are waited for so long, and a second signal ends it | `a_drain_has_its_time_and_no_more`, `a_second_signal_ends_a_drain_at_once` |
//! | everybody coming back in one moment after a restart | their connections are closed one after the other | `at_the_end_nobody_hears_that_others_leave_and_not_all_are_told_in_one_moment` |
//! | topics without number or end, or all in one frame | so many for each, and each so long; a name of one length stands for each | `topics_are_capped_for_each_client_and_clients_for_each_topic_and_it_is_told`, `a_frame_names_so_many_topics`, `any_text_is_a_topic_up_to_its_length` |
//! | one frame that has a thousand topics looked at | each counts, and everybody there | `topics_count_each_once_and_so_does_everybody_there`, `who_names_a_thousand_topics_again_and_again_is_beyond_its_rate` |
//! | publishing to who doesn't read, or faster than one may | mailboxes as for everybody, and the same rate | `a_subscriber_that_stops_reading_is_closed_and_holds_nobody_back`, `publishers_beyond_their_rate_are_told_and_then_closed_and_no_subscriber_hears_it` |
//! | a room of two as a third | it is full | `two_negotiate_a_third_is_rejected_and_bye_ends_the_room` |
//! | frames of any kind to other gateways | strict decoding; what isn't understood is answered, and closes the third time | `whatever_is_published_everybody_hears_json`, `any_frames_about_topics_get_json_at_most`, `any_frames_of_ayame_get_json_at_most` |
//! | text that forges lines in logs and metrics | no name of a client's is in either | `whatever_is_in_a_username_is_refused_and_shows_in_no_log_and_no_metric` |
//! | waiting for a log line, a metric or a panic message that has a secret in it | what holds one has no `Debug`, or one that hides it | `no_secret_is_in_the_log_on_stdout_or_in_anything_that_is_served`, `no_secret_is_in_help_or_in_an_error_of_the_configuration`, `what_holds_a_secret_cannot_be_shown_or_hides_it` |
//! | metrics without end, by what strangers say or by scraping | every label is one of a few known when this is compiled | `every_pair_of_labels_has_a_number_of_its_own`, `thousands_of_scrapes_leave_nothing_behind` |
//! | announcing somebody else's address | only who is listed may, and must | `nobody_else_can_announce_a_client`, `without_a_good_header_a_load_balancers_connection_is_closed_and_counted_on_every_port` |
//! | the same, in X-Forwarded-For | what a trusted proxy added last counts | `the_client_that_a_trusted_proxy_forwards_counts_for_web_sockets_and_sign_ins` |
//! | hiding from limits behind a load balancer | whom it announces counts | `limits_per_source_count_the_announced_client_and_never_the_load_balancer` |
//! | taking all the bandwidth, or the month's traffic | buckets of each allocation and of all; a volume | `an_allocation_has_its_bandwidth_both_ways_and_no_other_pays_for_it`, `a_used_up_volume_stops_relaying_and_allocating_even_after_a_restart` |
//! | sending at full blast, as a client or as a peer | sockets take turns of one batch, so that a flood fills only the kernel's buffer of its own socket; what is over its bandwidth is dropped | `a_client_at_full_blast_costs_the_others_no_datagram`, `a_peer_at_full_blast_costs_the_others_no_datagram` |
//! | requests without number, to stall media | another thread decides about them; its queue is bounded, and what it leaves is dropped | `fifty_thousand_allocate_requests_a_second_of_strangers_cost_media_no_datagram`, `without_its_control_task_the_media_thread_relays_and_answers_without_loss` |
//! | sending to clients of another shard faster than it takes | a ring that drops what doesn't fit, and nobody waits | `what_a_shard_far_behind_has_no_room_for_is_dropped_and_counted_and_the_rest_comes_in_order` |
//! | relay addresses without number, on a host that owns a network | places of fixed number | `more_relay_addresses_than_there_is_room_for_are_refused_and_the_others_stay_right` |
//! | having one's 5-tuples spread over shards for another share | counted over all of them; only Binding, whose answers gain nobody anything, by each | `quotas_count_over_all_shards_and_what_ends_on_one_makes_room_on_another`, `strangers_and_new_peers_are_counted_over_all_shards` |
//! | a loop through our own listener | never a peer, even when allowed | `our_own_listener_is_never_a_peer_even_when_allowed` |
//! | refreshing without end, to fill the queue of what expires | a channel stands in it once | `refreshing_without_end_keeps_one_entry_for_a_channel` |
//! | asking for proof of our names, or for an authority's texts | only exactly what an authority was told of is there, while it looks | `who_asks_for_proof_of_a_name_that_nobody_wants_proved_gets_no_handshake_and_no_text`, `only_a_known_token_is_answered_while_its_offer_lasts` |
//! | an authority that wants proofs without number, or sends answers without end | a hundred at once, and 64 KiB | `challenges_are_capped_and_their_end_makes_room`, `an_answer_without_end_and_a_url_in_clear_are_errors` |
//! | having an authority quote what forges lines in the log | no control character, and so long | `what_a_stranger_has_the_authority_say_forges_no_line_and_fills_no_disk` |
//! | junk of every kind | strict decoding; one counter a reason, no log line | `a_header_that_is_not_stuns_or_a_length_that_is_not_its_own_is_dropped`, `no_bytes_at_all_bring_the_decoders_down` |

pub mod address;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod gateway;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod places;
pub mod policy;
pub mod rate;
pub mod relay;
pub mod signaling;
pub mod turn;
pub mod volume;
pub mod web;
pub mod wire;
