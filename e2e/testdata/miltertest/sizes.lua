-- MLT-05: very many fields, a large body: over a limit there is a finding, and the message goes on.
local conn = greeted()
for _, from in ipairs({ "s@lab.test", "ceo@bank.test" }) do
	envelope(conn, "N")
	for i = 1, 3000 do must(mt.header(conn, "X-" .. i, "v"), "field " .. i) end
	header(conn, from)
	body(conn)
	must(mt.eom(conn), "end of message")
	-- A From beyond the limit is none that hides.
	replies(conn, from == "s@lab.test" and SMFIR_ACCEPT or SMFIR_REPLYCODE, "3000 fields before the From " .. from)
end

envelope(conn, "B")
header(conn, "s@lab.test")
must(mt.eoh(conn), "end of header")
must(mt.bodyrandom(conn, 5000000), "body")
must(mt.eom(conn), "end of message")
replies(conn, SMFIR_ACCEPT, "a body of 5 MB")
refused(conn, "R1")
mt.disconnect(conn)
