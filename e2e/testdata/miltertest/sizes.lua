-- MLT-05: very many fields, a large body: over a limit there is a finding, and the message goes on.
local conn = greeted()
envelope(conn, "N")
for i = 1, 3000 do must(mt.header(conn, "X-" .. i, "v"), "field " .. i) end
header(conn, "ceo@bank.test")
body(conn)
must(mt.eom(conn), "end of message")
replies(conn, SMFIR_ACCEPT, "a header over the limit, whose From is beyond it")

envelope(conn, "B")
header(conn, "s@lab.test")
must(mt.eoh(conn), "end of header")
must(mt.bodyrandom(conn, 5000000), "body")
must(mt.eom(conn), "end of message")
replies(conn, SMFIR_ACCEPT, "a body of 5 MB")
refused(conn, "R1")
mt.disconnect(conn)
