# What a program has written it reads, on another connection, at once: ActiveRecord through the URL in DATABASE_URL, ROUNDS
# times. Prints `ok ActiveRecord` and `all ok` at the end.

require "active_record"

URL = ENV.fetch("DATABASE_URL").sub(/\Apostgres:/, "postgresql:")
ROUNDS = Integer(ENV.fetch("ROUNDS"))

class Writer < ActiveRecord::Base
  self.abstract_class = true
  establish_connection(URL)
end

class Reader < ActiveRecord::Base
  self.abstract_class = true
  establish_connection(URL)
end

class Written < Writer
  self.table_name = "own_active_record"
end

class Found < Reader
  self.table_name = "own_active_record"
end

Writer.connection.create_table(:own_active_record, id: false, force: true) do |table|
  table.primary_key :id, :integer, default: nil
  table.text :name
end

ROUNDS.times do |number|
  name = "number #{number}"
  case number % 3
  when 0 then Written.create!(id: number, name: name)
  when 1 then Written.insert_all!([{ id: number, name: name }])
  when 2 then Written.transaction { Written.new(id: number, name: name).save! }
  end
  found = Found.find(number).name
  raise "#{number}: #{found}" unless found == name

  Written.where(id: number).update_all(name: "changed")
  raise "#{number} is not found changed" unless Found.exists?(id: number, name: "changed")
end
puts "ok ActiveRecord", "all ok"
