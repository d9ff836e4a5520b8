-- What the dialogues share; it stands before each of them. A login makes a message outgoing; a From that is not of
-- lab.test is refused, and so shows that the message was judged, and by its own envelope and header.

function must(result, what)
	if result ~= nil then error(what .. ": " .. tostring(result), 2) end
end

function replies(conn, want, what)
	local got = mt.getreply(conn)
	if got ~= want then error(string.format("%s is answered %c, want %c", what, got, want), 2) end
end

function connect()
	local conn = mt.connect("inet:8465@127.0.0.1", 20, 0.1)
	if conn == nil then error("no connection", 2) end
	return conn
end

function greeted(steps)
	local conn = connect()
	must(mt.negotiate(conn, 6, nil, steps), "negotiation")
	must(mt.conninfo(conn, "client.test", "192.0.2.7"), "connect")
	replies(conn, SMFIR_CONTINUE, "connect")
	must(mt.helo(conn, "client.test"), "helo")
	replies(conn, SMFIR_CONTINUE, "helo")
	return conn
end

function envelope(conn, id)
	mt.macro(conn, SMFIC_MAIL, "i", id, "{auth_authen}", "alice", "{auth_type}", "PLAIN")
	must(mt.mailfrom(conn, "<s@lab.test>"), "mail")
	replies(conn, SMFIR_CONTINUE, "mail")
	mt.macro(conn, SMFIC_RCPT, "{rcpt_addr}", "u@dest.test", "{rcpt_mailer}", "smtp")
	must(mt.rcptto(conn, "<u@dest.test>"), "rcpt")
	replies(conn, SMFIR_CONTINUE, "rcpt")
end

function header(conn, from)
	if from ~= nil then must(mt.header(conn, "From", from), "From") end
	must(mt.header(conn, "To", "u@dest.test"), "To")
	must(mt.header(conn, "Subject", "dialogue"), "Subject")
	must(mt.header(conn, "Message-ID", "<dialogue@lab.test>"), "Message-ID")
end

function body(conn)
	must(mt.eoh(conn), "end of header")
	replies(conn, SMFIR_CONTINUE, "end of header")
	must(mt.bodystring(conn, "hello\r\n"), "body")
end

function refused(conn, id)
	envelope(conn, id)
	header(conn, "ceo@bank.test")
	body(conn)
	must(mt.eom(conn), "end of message")
	replies(conn, SMFIR_REPLYCODE, "a foreign From")
end

function accepted(conn, id)
	envelope(conn, id)
	header(conn, "s@lab.test")
	body(conn)
	must(mt.eom(conn), "end of message")
	replies(conn, SMFIR_ACCEPT, "a message of ours")
end
