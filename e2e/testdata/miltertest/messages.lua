-- MLT-09: many messages in one connection, good and bad by turns, with and without an ABORT between.
local conn = greeted()
for i = 1, 12 do
	if i % 2 == 0 then refused(conn, "R" .. i) else accepted(conn, "A" .. i) end
	if i % 3 == 0 then must(mt.abort(conn), "abort") end
end
mt.disconnect(conn)

-- Each action, by its own reply.
conn = greeted()
envelope(conn, "T1")
header(conn, nil)
body(conn)
must(mt.eom(conn), "end of message")
replies(conn, SMFIR_REPLYCODE, "a missing From")
envelope(conn, "H1")
header(conn, "s@lab.test")
must(mt.header(conn, "Subject", "another"), "Subject")
body(conn)
must(mt.eom(conn), "end of message")
replies(conn, SMFIR_ACCEPT, "a message on hold")
if not mt.eom_check(conn, MT_QUARANTINE) then error("two subjects are not put on hold") end
mt.disconnect(conn)
