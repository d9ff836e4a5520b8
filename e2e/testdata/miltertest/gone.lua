-- MLT-10: a peer that goes without a word, at every point, costs nobody else anything.
local other = greeted()
for step = 1, 5 do
	local conn = connect()
	if step > 1 then must(mt.negotiate(conn, 6, nil, nil), "negotiation") end
	if step > 2 then must(mt.conninfo(conn, "client.test", "192.0.2.7"), "connect") end
	if step > 3 then envelope(conn, "G" .. step) end
	if step > 4 then
		header(conn, "ceo@bank.test")
		body(conn)
	end
	mt.disconnect(conn, false)
	accepted(other, "O" .. step)
end
refused(other, "R1")
mt.disconnect(other)
