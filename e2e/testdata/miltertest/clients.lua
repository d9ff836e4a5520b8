-- Clients of every family, and of none. Only a login is outgoing here.
for _, address in ipairs({ "192.0.2.7", "127.0.0.1", "2001:db8::7", "::1", "unspec" }) do
	local conn = connect()
	must(mt.negotiate(conn, 6, nil, nil), "negotiation")
	must(mt.conninfo(conn, "client.test", address), "connect from " .. address)
	replies(conn, SMFIR_CONTINUE, "connect from " .. address)
	refused(conn, "C")
	must(mt.abort(conn), "abort")
	-- Without a login it passes unseen.
	mt.macro(conn, SMFIC_MAIL, "i", "U")
	must(mt.mailfrom(conn, "<s@bank.test>", "SIZE=1000", "BODY=8BITMIME", "SMTPUTF8"), "mail")
	must(mt.rcptto(conn, "<u@dest.test>", "NOTIFY=NEVER"), "rcpt")
	header(conn, "ceo@bank.test")
	body(conn)
	must(mt.eom(conn), "end of message")
	replies(conn, SMFIR_ACCEPT, "mail that is not outgoing")
	mt.disconnect(conn)
end
